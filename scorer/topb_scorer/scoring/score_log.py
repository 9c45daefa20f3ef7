"""The score log: one Parquet file a finished shard; all that scoring hands to selection."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from topb_scorer import durable
from topb_scorer.durable import is_unpublished, publish_file

LOGGED_OUTPUTS = ("score", "probabilities")
NOT_FINITE = "SCORE_NOT_FINITE"

_SUFFIX = ".parquet"

FEATURE_OUTPUTS = (*LOGGED_OUTPUTS, "features")

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "score": pa.float32(),
        "entropy": pa.float64(),
        "margin": pa.float64(),
        "confidence": pa.float32(),
        "predicted_class": pa.int32(),
        "skip_reason": pa.string(),
        "skip_detail": pa.string(),
    }
)
_ARRAYS = ("features", "probabilities")


@dataclass(frozen=True)
class Skip:
    """Why a row could not be scored."""

    reason: str
    detail: str


@dataclass(frozen=True)
class ScoredRows:
    """Rows of one shard, column by column; the numbers of a skipped row mean nothing."""

    ids: list[str]
    score: NDArray[np.float32]
    """(n) the model's own score: the assistant's."""
    entropy: NDArray[np.float64]
    """(n) of the predicted distribution, in nats."""
    margin: NDArray[np.float64]
    """(n) first minus second probability."""
    confidence: NDArray[np.float32]
    """(n) the first probability."""
    predicted_class: NDArray[np.int32]
    """(n) index of the first probability."""
    skips: Mapping[int, Skip]
    """By row."""
    features: NDArray[np.float32] | None = None
    """(n, D) of the task model, where the log holds them."""
    probabilities: NDArray[np.float32] | None = None
    """(n, C), where the log holds features."""

    def ids_of(self, rows: NDArray[np.intp]) -> list[str]:
        """The ids of rows, which are in their order and each at most once."""
        return self.ids if len(rows) == len(self.ids) else [self.ids[row] for row in rows.tolist()]


def scored_rows(
    ids: list[str], outputs: Mapping[str, NDArray[np.float32]], skips: Mapping[int, Skip]
) -> ScoredRows:
    """What the log keeps of a model's outputs.

    Args:
        ids: (n) of the rows.
        outputs: `score` float32 (n), `probabilities` float32 (n, C), C at least 1, and, if the log is to
            hold them, `features` float32 (n, D); buffers that may be filled again afterwards.
        skips: rows that could not be scored; to these are added the rows with an output that is not finite.
    """
    score, probabilities = outputs["score"], outputs["probabilities"]
    features = outputs.get("features")
    finite = np.isfinite(score) & np.isfinite(probabilities).all(axis=1)
    if features is not None:
        finite &= np.isfinite(features).all(axis=1)
    all_skips = dict(skips)
    for row in np.flatnonzero(~finite).tolist():
        all_skips.setdefault(row, Skip(NOT_FINITE, "the model's outputs are not all finite"))
    exact = np.where(finite[:, None], probabilities, 1.0).astype(np.float64)
    log = np.log(exact, out=np.zeros_like(exact), where=exact > 0)
    top = -np.sort(-exact, axis=1)
    return ScoredRows(
        ids=ids,
        score=score.copy(),
        entropy=-(exact * log).sum(axis=1) + 0.0,
        margin=top[:, 0] - top[:, 1] if exact.shape[1] > 1 else top[:, 0],
        confidence=top[:, 0].astype(np.float32),
        predicted_class=exact.argmax(axis=1).astype(np.int32),
        skips=all_skips,
        features=None if features is None else features.copy(),
        probabilities=None if features is None else probabilities.copy(),
    )


class AlteredShardError(Exception):
    """A committed shard is torn or was altered: it is to be discarded, and scored again."""

    def __init__(self, identity: str) -> None:
        super().__init__(f"shard {identity} of the score log is torn or was altered")
        self.identity = identity


class ScoreLog:
    """A directory of finished shards, one file each, named by the shard and by the digest of what is in it.

    Several processes may commit to one log. A shard's rows follow from the shard and the model alone, so that
    of two who commit the same shard it does not matter who is first.
    """

    def __init__(self, directory: Path, *, durable: bool = True, with_features: bool = False) -> None:
        """Takes the log's directory, and makes it where it is not there.

        Args:
            directory: of this log alone.
            durable: whether a committed shard survives a power loss; a log that is thrown away need not.
            with_features: whether its rows have features and probabilities, for set-based strategies.

        Attributes:
            outputs: of the model, that this log keeps something of.
        """
        self.outputs = FEATURE_OUTPUTS if with_features else LOGGED_OUTPUTS
        self._directory = directory
        self._durable = durable
        directory.mkdir(parents=True, exist_ok=True)

    def commit(self, identity: str, parts: Iterable[ScoredRows]) -> None:
        """Publishes the rows of one shard; from here on they survive a crash.

        Raises:
            OSError: the directory cannot be written to.
        """
        batches = [_record_batch(part) for part in parts]
        table = pa.Table.from_batches(batches) if batches else SCHEMA.empty_table()
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        path = self._shelf(identity) / f"{identity}-{_digest(content)}{_SUFFIX}"
        durable.step("shard scored", path)
        if self._durable:
            publish_file(path, lambda beside: beside.write_bytes(content))
        else:
            path.write_bytes(content)

    def holds(self, identity: str) -> bool:
        """Whether the shard was committed."""
        return self._path(identity) is not None

    def identities(self) -> list[str]:
        """The committed shards, in the order of their names."""
        files = self._directory.rglob(f"*{_SUFFIX}")
        return sorted({path.name.rpartition("-")[0] for path in files if not is_unpublished(path)})

    def rows(self, identities: Iterable[str]) -> int:
        """How many rows the committed shards have in all.

        Raises:
            AlteredShardError: one of them cannot be read.
        """
        return sum(self._row_count(identity) for identity in identities)

    def read(self, identities: Iterable[str]) -> Iterator[ScoredRows]:
        """The rows of committed shards, one shard at a time.

        Raises:
            AlteredShardError: one of them is not as it was committed.
        """
        for identity in identities:
            content = self._content(identity)
            # One thread: the order of rows, and of everything after, is that of the file.
            table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
            yield _scored_rows_of(table)

    def verify(self, identity: str) -> bool:
        """Whether a committed shard is as it was committed."""
        try:
            self._content(identity)
        except AlteredShardError:
            return False
        return True

    def discard(self, identity: str) -> None:
        """Removes a shard, so that it is scored again."""
        for path in self._files(identity):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the whole log."""
        durable.remove_directory(self._directory)

    def _content(self, identity: str) -> bytes:
        path = self._path(identity)
        if path is None:
            raise AlteredShardError(identity)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise AlteredShardError(identity) from None
        if _digest(content) != path.stem.rpartition("-")[2]:
            raise AlteredShardError(identity)
        return content

    def _row_count(self, identity: str) -> int:
        path = self._path(identity)
        try:
            return 0 if path is None else int(pq.read_metadata(path).num_rows)
        except (OSError, pa.ArrowException):
            raise AlteredShardError(identity) from None

    def _path(self, identity: str) -> Path | None:
        # Two files of one shard hold scores of two devices; either will do, the same one each time.
        return min(self._files(identity), default=None)

    def _files(self, identity: str) -> list[Path]:
        return list(self._shelf(identity, make=False).glob(f"{identity}-*{_SUFFIX}"))

    def _shelf(self, identity: str, *, make: bool = True) -> Path:
        # A log may hold very many shards; the end of an identity spreads them evenly.
        shelf = self._directory / identity[-2:]
        if make and not shelf.is_dir():
            shelf.mkdir(exist_ok=True)
        return shelf


def is_as_committed(path: Path) -> bool:
    """Whether a shard's file is there and holds what was committed under its name."""
    try:
        return _digest(path.read_bytes()) == path.stem.rpartition("-")[2]
    except FileNotFoundError:
        return False


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _record_batch(rows: ScoredRows) -> pa.RecordBatch:
    count = len(rows.ids)
    skipped = np.zeros(count, bool)
    skipped[list(rows.skips)] = True
    reasons = details = pa.nulls(count, pa.string())
    if rows.skips:
        known = [rows.skips.get(row) for row in range(count)]
        reasons = pa.array([skip and skip.reason for skip in known], pa.string())
        details = pa.array([skip and skip.detail for skip in known], pa.string())
    arrays = {name: getattr(rows, name) for name in _ARRAYS if getattr(rows, name) is not None}
    schema = SCHEMA
    for name, array in arrays.items():
        schema = schema.append(pa.field(name, pa.list_(pa.float32(), array.shape[1])))
    return pa.record_batch(
        [
            pa.array(rows.ids, pa.string()),
            pa.array(rows.score, pa.float32(), mask=skipped),
            pa.array(rows.entropy, pa.float64(), mask=skipped),
            pa.array(rows.margin, pa.float64(), mask=skipped),
            pa.array(rows.confidence, pa.float32(), mask=skipped),
            pa.array(rows.predicted_class, pa.int32(), mask=skipped),
            reasons,
            details,
            *(
                pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])
                for array in arrays.values()
            ),
        ],
        schema=schema,
    )


def _scored_rows_of(table: pa.Table) -> ScoredRows:
    def column(name: str, fill: float) -> NDArray[np.generic]:
        values: NDArray[np.generic] = table.column(name).fill_null(fill).to_numpy()
        return values

    skipped = np.flatnonzero(table.column("skip_reason").is_valid().to_numpy())
    rejected = table.take(skipped)
    reasons = rejected.column("skip_reason").to_pylist()
    details = rejected.column("skip_detail").to_pylist()
    skips = [Skip(reason, detail) for reason, detail in zip(reasons, details, strict=True)]
    return ScoredRows(
        ids=table.column("id").to_pylist(),
        score=column("score", 0.0).astype(np.float32),
        entropy=column("entropy", 0.0).astype(np.float64),
        margin=column("margin", 0.0).astype(np.float64),
        confidence=column("confidence", 0.0).astype(np.float32),
        predicted_class=column("predicted_class", 0).astype(np.int32),
        skips=dict(zip(skipped.tolist(), skips, strict=True)),
        **{name: _matrix(table, name) for name in _ARRAYS if name in table.column_names},
    )


def _matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    column = table.column(name).combine_chunks()
    flat: NDArray[np.float32] = column.flatten().to_numpy()
    return flat.reshape(len(column), column.type.list_size)
