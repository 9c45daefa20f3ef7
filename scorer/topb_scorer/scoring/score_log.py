"""Store scored rows in a score log, with one Parquet file per finished shard, for selecting to read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from topb_scorer import durable
from topb_scorer.durable import is_unpublished, publish_file
from topb_scorer.pools.pool import DIGEST_BYTES

NOT_FINITE = "SCORE_NOT_FINITE"

_NUMBERS = {
    "score": pa.float32(),
    "entropy": pa.float64(),
    "margin": pa.float64(),
    "confidence": pa.float32(),
    "predicted_class": pa.int32(),
}
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "digest": pa.binary(DIGEST_BYTES),
        **_NUMBERS,
        "skip_reason": pa.string(),
        "skip_detail": pa.string(),
    }
)
"""The columns of every log. A log with features also has `features` and `probabilities`, fixed-size lists."""
VERSION = 2
"""The version of the columns and of the rules by which images are decoded. Shards of another version are
ignored, and their rows are scored again. Version 1 had no digests, and images of some modes were black."""
_SUFFIX = ".parquet"


@dataclass(frozen=True)
class Skip:
    """The reason why a row could not be scored."""

    reason: str
    """A stable name in UPPER_SNAKE_CASE."""
    detail: str


@dataclass(frozen=True)
class ScoredRows:
    """The columns of n rows of one shard. The numbers of skipped rows have no meaning."""

    ids: list[str]
    digests: NDArray[np.uint8]
    """uint8 (n, 16): the content digests of the images, `NO_DIGEST` for rows that could not be read."""
    score: NDArray[np.float32]
    """float32 (n,): the model's `score` output. Its meaning depends on the training method: the assistant's
    logit for AALU, the discriminator's logit for VAAL, and 0 for models without either."""
    entropy: NDArray[np.float64]
    """float64 (n,): entropy of the predicted distribution, in nats. This and the next two are 0 if the model
    has no classifier."""
    margin: NDArray[np.float64]
    """float64 (n,): difference between the largest and the second-largest probability."""
    confidence: NDArray[np.float32]
    """float32 (n,): largest probability."""
    predicted_class: NDArray[np.int32]
    """int32 (n,): index of the most probable class; −1 if the model has no classifier."""
    skips: Mapping[int, Skip]
    """Rows that could not be scored, by index."""

    def ids_of(self, rows: NDArray[np.intp]) -> list[str]:
        """Return the ids of the given rows. `rows` must be ascending."""
        return self.ids if len(rows) == len(self.ids) else [self.ids[row] for row in rows.tolist()]


@dataclass(frozen=True)
class FeatureRows(ScoredRows):
    """Rows of a log with features, which set-based strategies need."""

    features: NDArray[np.float32]
    """float32 (n, D): features of the task model."""
    probabilities: NDArray[np.float32]
    """float32 (n, C): predicted class probabilities; C is 0 if the model has no classifier."""


def scored_rows(
    ids: list[str],
    outputs: Mapping[str, NDArray[np.float32]],
    skips: Mapping[int, Skip],
    *,
    digests: NDArray[np.uint8] | None = None,
    with_features: bool = False,
) -> ScoredRows:
    """Return the rows that the log stores for a model's outputs: `FeatureRows` if it stores features.

    Args:
        ids: n ids.
        outputs: all outputs of the model: `features`, float32 (n, D), and, if the model has them, `score`,
            float32 (n,), and `probabilities`, float32 (n, C) with C ≥ 1. The buffers may be overwritten
            afterwards.
        skips: rows that could not be scored. A row with any output that is not finite is skipped as well,
            whether or not the log stores that output.
        digests: uint8 (n, 16), the content digests of the images; None if they are not known.
        with_features: whether the log stores features.
    """
    finite = np.ones(len(ids), bool)
    for values in outputs.values():
        finite &= np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    all_skips = dict(skips)
    for row in np.flatnonzero(~finite).tolist():
        all_skips.setdefault(row, Skip(NOT_FINITE, "the model's outputs are not all finite"))
    if digests is None:
        digests = np.zeros((len(ids), DIGEST_BYTES), np.uint8)
    score = outputs.get("score", np.zeros(len(ids), np.float32)).copy()
    probabilities = outputs.get("probabilities", np.zeros((len(ids), 0), np.float32))
    predictions = _predictions(np.where(finite[:, None], probabilities, 1.0).astype(np.float64))
    columns: dict[str, Any] = {
        "ids": ids,
        "digests": digests,
        "score": score,
        **predictions,
        "skips": all_skips,
    }
    if not with_features:
        return ScoredRows(**columns)
    return FeatureRows(**columns, features=outputs["features"].copy(), probabilities=probabilities.copy())


def _predictions(exact: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return the columns of ScoredRows that follow from probabilities, float64 (n, C)."""
    rows, classes = exact.shape
    if not classes:
        zero = np.zeros(rows)
        none = {"confidence": zero.astype(np.float32), "predicted_class": np.full(rows, -1, np.int32)}
        return {"entropy": zero, "margin": zero, **none}
    log = np.log(exact, out=np.zeros_like(exact), where=exact > 0)
    top = -np.sort(-exact, axis=1)
    return {
        "entropy": -(exact * log).sum(axis=1) + 0.0,
        "margin": top[:, 0] - top[:, 1] if classes > 1 else top[:, 0],
        "confidence": top[:, 0].astype(np.float32),
        "predicted_class": exact.argmax(axis=1).astype(np.int32),
    }


class AlteredShardError(Exception):
    """A committed shard is incomplete or was altered. It must be discarded and scored again."""

    def __init__(self, identity: str) -> None:
        super().__init__(f"shard {identity} of the score log is incomplete or was altered")
        self.identity = identity


class ScoreLog:
    """A directory with one file per finished shard. The name contains the shard's identity and a digest.

    Several processes may commit to one log. The rows of a shard depend only on the shard and the model, so it
    does not matter which process commits a shard first.

    Attributes:
        with_features: whether the rows have features and probabilities.
    """

    def __init__(self, directory: Path, *, durable: bool = True, with_features: bool = False) -> None:
        """Open the log. Its directory is created when the first shard is committed.

        Args:
            directory: a directory for this log only.
            durable: whether committed shards must survive a power loss; false for temporary logs.
            with_features: whether the rows have features and probabilities, which set-based strategies need.
        """
        self.with_features = with_features
        self._directory = directory
        self._durable = durable

    def commit(self, identity: str, parts: Sequence[ScoredRows]) -> None:
        """Write the rows of one shard. If the log is durable, they survive a crash after this call returns.

        Raises:
            OSError: the directory cannot be written to.
        """
        batches = [_record_batch(part) for part in parts]
        table = pa.Table.from_batches(batches) if batches else SCHEMA.empty_table()
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        path = self._directory_of(identity) / f"{identity}-{_digest(content)}{_SUFFIX}"
        durable.step("shard scored", path)
        if self._durable:
            publish_file(path, lambda beside: beside.write_bytes(content))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def make_durable(self) -> None:
        """Let all committed shards survive a power loss, even if a process died before the end of a commit.

        Raises:
            OSError: a directory cannot be synced.
        """
        durable.sync_names(self._directory)

    def holds(self, identity: str) -> bool:
        """Return whether the shard was committed."""
        return self._path(identity) is not None

    def identities(self) -> list[str]:
        """Return the identities of the committed shards, sorted."""
        files = self._directory.glob(f"v{VERSION}-*/*{_SUFFIX}")
        return sorted({shard_identity(path) for path in files if not is_unpublished(path)})

    def rows(self, identities: Iterable[str]) -> int:
        """Return the total number of rows in these shards. A shard that was not committed counts as 0.

        Raises:
            AlteredShardError: a shard cannot be read.
        """
        return sum(self._row_count(identity) for identity in identities)

    def read(self, identities: Iterable[str]) -> Iterator[ScoredRows]:
        """Yield the rows of committed shards, one shard at a time, without features.

        Raises:
            AlteredShardError: a shard is missing, incomplete or altered.
        """
        for identity in identities:
            yield ScoredRows(**_columns_of(self._read(identity, SCHEMA.names)))

    def read_with_features(self, identities: Iterable[str]) -> Iterator[FeatureRows]:
        """Yield the rows of committed shards, one shard at a time, from a log with features.

        Raises:
            AlteredShardError: a shard is missing, incomplete or altered.
        """
        for identity in identities:
            table = self._read(identity)
            # A shard without rows has no columns of features and probabilities.
            if table.num_rows:
                features, probabilities = (_matrix(table, name) for name in ("features", "probabilities"))
                yield FeatureRows(**_columns_of(table), features=features, probabilities=probabilities)

    def discard_altered(self, identities: Iterable[str]) -> None:
        """Remove the shards that are incomplete or altered, so that they are scored again."""
        for identity in identities:
            path = self._path(identity)
            if path is not None and not is_as_committed(path):
                for file in self._files(identity):
                    file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the whole log."""
        durable.remove_directory(self._directory)

    def _read(self, identity: str, columns: list[str] | None = None) -> pa.Table:
        path = self._path(identity)
        content = None if path is None else _committed_content(path)
        if content is None:
            raise AlteredShardError(identity)
        # One thread keeps the rows in the order of the file.
        return pq.ParquetFile(pa.BufferReader(content)).read(columns, use_threads=False)

    def _row_count(self, identity: str) -> int:
        path = self._path(identity)
        try:
            return 0 if path is None else int(pq.read_metadata(path).num_rows)
        except (OSError, pa.ArrowException):
            raise AlteredShardError(identity) from None

    def _path(self, identity: str) -> Path | None:
        # A shard that was scored on two devices may have two files. Either is valid; always take the same.
        return min(self._files(identity), default=None)

    def _files(self, identity: str) -> list[Path]:
        return list(self._directory_of(identity).glob(f"{identity}-*{_SUFFIX}"))

    def _directory_of(self, identity: str) -> Path:
        # A log may hold many shards. The end of the identity spreads them evenly over directories.
        return self._directory / f"v{VERSION}-{identity[-2:]}"


def shard_identity(path: Path) -> str:
    """Return the identity of the shard in a file of a score log."""
    return path.name.rpartition("-")[0]


def is_as_committed(path: Path) -> bool:
    """Return whether a file of a score log exists and its content matches the digest in its name."""
    return _committed_content(path) is not None


def _committed_content(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return content if _digest(content) == path.stem.rpartition("-")[2] else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _record_batch(rows: ScoredRows) -> pa.RecordBatch:
    skips = [rows.skips.get(row) for row in range(len(rows.ids))]
    skipped = np.array([skip is not None for skip in skips], bool)
    columns = [
        pa.array(rows.ids, pa.string()),
        pa.FixedSizeBinaryArray.from_buffers(
            SCHEMA.field("digest").type, len(rows.ids), [None, pa.py_buffer(rows.digests.tobytes())]
        ),
        *(pa.array(getattr(rows, name), kind, mask=skipped) for name, kind in _NUMBERS.items()),
        pa.array([skip and skip.reason for skip in skips], pa.string()),
        pa.array([skip and skip.detail for skip in skips], pa.string()),
    ]
    batch = pa.record_batch(columns, schema=SCHEMA)
    if isinstance(rows, FeatureRows):
        for name in ("features", "probabilities"):
            array = getattr(rows, name)
            if not array.shape[1]:
                continue  # A model without a classifier.
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])
            batch = batch.append_column(name, vectors)
    return batch


def _columns_of(table: pa.Table) -> dict[str, Any]:
    """Return the columns of SCHEMA as keyword arguments of ScoredRows."""
    skipped = np.flatnonzero(table.column("skip_reason").is_valid().to_numpy())
    rejected = table.select(["skip_reason", "skip_detail"]).take(skipped)
    skips = [Skip(row["skip_reason"], row["skip_detail"]) for row in rejected.to_pylist()]
    return {
        "ids": table.column("id").to_pylist(),
        "digests": _digests(table),
        **{name: table.column(name).fill_null(0).to_numpy() for name in _NUMBERS},
        "skips": dict(zip(skipped.tolist(), skips, strict=True)),
    }


def _digests(table: pa.Table) -> NDArray[np.uint8]:
    column = table.column("digest").combine_chunks()
    _, data = column.buffers()
    start, size = column.offset * DIGEST_BYTES, len(column) * DIGEST_BYTES
    return np.frombuffer(data or b"", np.uint8, size, start).reshape(-1, DIGEST_BYTES)


def _matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    if name not in table.column_names:
        return np.zeros((table.num_rows, 0), np.float32)
    column = table.column(name).combine_chunks()
    flat: NDArray[np.float32] = column.flatten().to_numpy()
    return flat.reshape(len(column), column.type.list_size)
