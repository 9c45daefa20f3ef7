"""The score log: one Parquet file a finished shard; all that scoring hands to selection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from topb_scorer.durable import publish_file

LOGGED_OUTPUTS = ("score", "probabilities")
NOT_FINITE = "SCORE_NOT_FINITE"

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


def scored_rows(
    ids: list[str], outputs: Mapping[str, NDArray[np.float32]], skips: Mapping[int, Skip]
) -> ScoredRows:
    """What the log keeps of a model's outputs.

    Args:
        ids: (n) of the rows.
        outputs: `score` float32 (n) and `probabilities` float32 (n, C), C at least 1; buffers that may
            be filled again afterwards.
        skips: rows that could not be scored; to these are added the rows with an output that is not finite.
    """
    score, probabilities = outputs["score"], outputs["probabilities"]
    finite = np.isfinite(score) & np.isfinite(probabilities).all(axis=1)
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
    )


class ScoreLog:
    """A directory of finished shards."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def commit(self, identity: str, parts: Iterable[ScoredRows]) -> None:
        """Publishes the rows of one shard; from here on they survive a crash.

        Raises:
            OSError: the directory cannot be written to.
        """
        batches = [_record_batch(part) for part in parts]
        table = pa.Table.from_batches(batches, SCHEMA)
        publish_file(self._path(identity), lambda path: pq.write_table(table, path, compression="zstd"))

    def holds(self, identity: str) -> bool:
        """Whether the shard was committed."""
        return self._path(identity).is_file()

    def read(self, identities: Iterable[str]) -> Iterator[ScoredRows]:
        """The rows of committed shards, one shard at a time."""
        for identity in identities:
            # One thread: the order of rows, and of everything after, is that of the file.
            yield _scored_rows_of(pq.read_table(self._path(identity), schema=SCHEMA, use_threads=False))

    def _path(self, identity: str) -> Path:
        return self._directory / f"{identity}.parquet"


def _record_batch(rows: ScoredRows) -> pa.RecordBatch:
    count = len(rows.ids)
    skipped = np.zeros(count, bool)
    skipped[list(rows.skips)] = True
    reasons = [rows.skips[i].reason if i in rows.skips else None for i in range(count)]
    details = [rows.skips[i].detail if i in rows.skips else None for i in range(count)]
    return pa.record_batch(
        [
            pa.array(rows.ids, pa.string()),
            pa.array(rows.score, pa.float32(), mask=skipped),
            pa.array(rows.entropy, pa.float64(), mask=skipped),
            pa.array(rows.margin, pa.float64(), mask=skipped),
            pa.array(rows.confidence, pa.float32(), mask=skipped),
            pa.array(rows.predicted_class, pa.int32(), mask=skipped),
            pa.array(reasons, pa.string()),
            pa.array(details, pa.string()),
        ],
        schema=SCHEMA,
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
    )
