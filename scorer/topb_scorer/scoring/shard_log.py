"""Keep a Parquet file for each finished shard: what score logs and feature logs have in common."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from topb_scorer import durable
from topb_scorer.durable import is_unpublished
from topb_scorer.pools.pool import DIGEST_BYTES
from topb_scorer.scoring.encoded_rows import Skip

ROW_COLUMNS = {
    "id": pa.string(),
    "digest": pa.binary(DIGEST_BYTES),
    "skip_reason": pa.string(),
    "skip_detail": pa.string(),
}
"""The columns of every log. The others belong to its kind."""
_SUFFIX = ".parquet"


class AlteredShardError(Exception):
    """A committed shard is missing, incomplete or was altered. It must be discarded and computed again."""

    def __init__(self, identity: str, log: str) -> None:
        super().__init__(f"shard {identity} of the {log} is incomplete or was altered")
        self.identity = identity
        self.log = log


class ShardLog:
    """A directory with one file per finished shard. The name contains the shard's identity and a digest.

    Several processes may commit to one log. The rows of a shard depend only on the shard and the model, so it
    does not matter which process commits a shard first.
    """

    kind: ClassVar[str]
    """What the log is called in messages."""
    version: ClassVar[int]
    """The version of the columns and of the rules by which images are decoded. Shards of another version are
    ignored, and their rows are computed again."""

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        """Open the log. Its directory is created when the first shard is committed.

        Args:
            directory: a directory for this log only.
            durable: whether committed shards must survive a power loss; false for temporary logs.
        """
        self.directory = directory
        self._durable = durable

    def make_durable(self) -> None:
        """Let all committed shards survive a power loss, even if a process died before the end of a commit.

        Raises:
            OSError: a directory cannot be synced.
        """
        durable.sync_names(self.directory)

    def holds(self, identity: str) -> bool:
        """Return whether the shard was committed."""
        return self._path(identity) is not None

    def identities(self) -> list[str]:
        """Return the identities of the committed shards, sorted."""
        files = self.directory.glob(f"v{self.version}-*/*{_SUFFIX}")
        return sorted({shard_identity(path) for path in files if not is_unpublished(path)})

    def rows(self, identities: Iterable[str]) -> int:
        """Return the total number of rows in these shards. A shard that was not committed counts as 0.

        Raises:
            AlteredShardError: a shard cannot be read.
        """
        return sum(self._row_count(identity) for identity in identities)

    def discard_altered(self, identities: Iterable[str]) -> None:
        """Remove the shards that are incomplete or altered, so that they are computed again."""
        for identity in identities:
            path = self._path(identity)
            if path is not None and not is_as_committed(path):
                for file in self._files(identity):
                    file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the whole log."""
        durable.remove_directory(self.directory)

    @contextmanager
    def _committing(self, identity: str, step: str) -> Iterator[Path]:
        """Commit the shard that the caller writes to the temporary file, unless the caller raises.

        If the log is durable, the rows survive a crash after that.

        Raises:
            OSError: the directory cannot be written to.
        """
        directory = self._directory_of(identity)
        with durable.unpublished_file(directory, _SUFFIX, synced=self._durable) as temporary:
            yield temporary
            with temporary.open("rb") as file:
                path = directory / f"{identity}-{_digest(file)}{_SUFFIX}"
            durable.step(step, path)
            durable.publish(temporary, path, synced=self._durable)

    @contextmanager
    def _reading(self, identity: str) -> Iterator[pq.ParquetFile]:
        """Open a shard whose content matches its digest. If it is removed later, it stays readable.

        Raises:
            AlteredShardError: the shard is missing, incomplete or altered.
        """
        path = self._path(identity)
        if path is None:
            raise self._altered(identity)
        try:
            with path.open("rb") as file:
                if not _is_as_committed(path, file):
                    raise self._altered(identity)
                with suppress(OSError):
                    os.utime(path)  # Pruning removes the shards that were not used for the longest time.
                file.seek(0)
                yield pq.ParquetFile(file)
        except (FileNotFoundError, pa.ArrowException):
            raise self._altered(identity) from None

    def _altered(self, identity: str) -> AlteredShardError:
        return AlteredShardError(identity, self.kind)

    def _row_count(self, identity: str) -> int:
        path = self._path(identity)
        try:
            return 0 if path is None else int(pq.read_metadata(path).num_rows)
        except (OSError, pa.ArrowException):
            raise self._altered(identity) from None

    def _path(self, identity: str) -> Path | None:
        # A shard that was computed on two devices may have two files. Either is valid; always take the same.
        return min(self._files(identity), default=None)

    def _files(self, identity: str) -> list[Path]:
        return list(self._directory_of(identity).glob(f"{identity}-*{_SUFFIX}"))

    def _directory_of(self, identity: str) -> Path:
        # A log may hold many shards. The end of the identity spreads them evenly over directories.
        return self.directory / f"v{self.version}-{identity[-2:]}"


def shard_identity(path: Path) -> str:
    """Return the identity of the shard in a file of a log."""
    return path.name.rpartition("-")[0]


def is_as_committed(path: Path) -> bool:
    """Return whether a file of a log exists and its content matches the digest in its name."""
    try:
        with path.open("rb") as file:
            return _is_as_committed(path, file)
    except FileNotFoundError:
        return False


def row_arrays(ids: list[str], digests: NDArray[np.uint8], skips: Mapping[int, Skip]) -> dict[str, pa.Array]:
    """Return the `ROW_COLUMNS` of n rows. The arguments are fields of `EncodedRows` and `ScoredRows`."""
    skipped = [skips.get(row) for row in range(len(ids))]
    return {
        "id": pa.array(ids, pa.string()),
        "digest": binary_array(digests),
        "skip_reason": pa.array([skip and skip.reason for skip in skipped], pa.string()),
        "skip_detail": pa.array([skip and skip.detail for skip in skipped], pa.string()),
    }


def row_fields(table: pa.Table) -> dict[str, Any]:
    """Return `ids`, `digests` and `skips`, from which `row_arrays` made the columns of a table."""
    skipped = np.flatnonzero(table.column("skip_reason").is_valid().to_numpy())
    rejected = table.select(["skip_reason", "skip_detail"]).take(skipped)
    skips = [Skip(row["skip_reason"], row["skip_detail"]) for row in rejected.to_pylist()]
    return {
        "ids": table.column("id").to_pylist(),
        "digests": binary_rows(table, "digest"),
        "skips": dict(zip(skipped.tolist(), skips, strict=True)),
    }


def binary_array(rows: NDArray[Any]) -> pa.Array:
    """Return the bytes of each row of an array (n, …) as fixed-size binary, or nulls if it has none."""
    width = rows.itemsize * math.prod(rows.shape[1:])
    if not width:
        return pa.nulls(len(rows))
    data = pa.py_buffer(np.ascontiguousarray(rows).data)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, data])


def binary_rows(table: pa.Table, name: str) -> NDArray[np.uint8]:
    """Return a column of `binary_array`, uint8 (n, bytes)."""
    column = table.column(name).combine_chunks()
    if pa.types.is_null(column.type):
        return np.zeros((len(column), 0), np.uint8)
    width = column.type.byte_width
    _, data = column.buffers()
    return np.frombuffer(data or b"", np.uint8, len(column) * width, column.offset * width).reshape(-1, width)


def _is_as_committed(path: Path, file: BufferedReader) -> bool:
    return _digest(file) == path.stem.rpartition("-")[2]


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()[:32]
