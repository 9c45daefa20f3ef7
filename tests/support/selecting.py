"""Run selections from shards, and compare them with the reference."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support.images import write_parquet
from support.reference_selection import Row
from topb.results import Accounts, Pick, SelectionResult
from topb_scorer.engines.local import LocalEngine
from topb_scorer.pools import AllowedRoots, Shard, open_pool
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.scoring.model_logs import logs_below
from topb_scorer.selecting.observer import SelectionObserver
from topb_scorer.selecting.selection import select_from_pool, select_from_stream
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import SetCandidates


@dataclass
class RecordingObserver(SelectionObserver):
    """Record the reports of a selection, and optionally pass them on."""

    rows: list[int] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)
    then_on_rows: Callable[[int], object] | None = None
    then_on_commit: Callable[[Shard], object] | None = None

    def on_rows(self, count: int) -> None:
        self.rows.append(count)
        if self.then_on_rows:
            self.then_on_rows(count)

    def on_commit(self, shard: Shard) -> None:
        self.committed.append(shard.identity)
        if self.then_on_commit:
            self.then_on_commit(shard)


def set_candidates(
    features: NDArray[np.float32],
    labelled: NDArray[np.float32] | None = None,
    probabilities: NDArray[np.float32] | None = None,
    scores: NDArray[np.floating] | None = None,
) -> SetCandidates:
    return SetCandidates(
        features=features,
        labelled=features[:0] if labelled is None else labelled,
        probabilities=np.zeros((len(features), 0), np.float32) if probabilities is None else probabilities,
        scores=np.zeros(len(features)) if scores is None else scores.astype(np.float64),
    )


def selected(
    spec: SelectionSpec,
    engine: LocalEngine,
    shards: Iterable[Shard | None],
    *,
    cancelled: threading.Event | None = None,
    observer: SelectionObserver = SelectionObserver(),
) -> SelectionResult:
    """Select from shards that can be read again."""
    pool = [shard for shard in shards if shard is not None]
    return select_from_pool(spec, engine, pool, observer=observer, cancelled=cancelled or threading.Event())


def streamed(
    spec: SelectionSpec,
    engine: LocalEngine,
    shards: Iterable[Shard | None],
    *,
    observer: SelectionObserver = SelectionObserver(),
) -> SelectionResult:
    """Select from shards that can be read only once, and score them as they arrive."""
    with tempfile.TemporaryDirectory() as directory:
        logs = logs_below(Path(directory), needs_features=spec.needs_features, durable=False)
        return select_from_stream(spec, engine, shards, logs, observer=observer, cancelled=threading.Event())


def outcome(result: SelectionResult) -> tuple[tuple[Pick, ...], Accounts]:
    """Return the picks and the accounts without skipped examples, as the reference does."""
    assert len(result.accounts.skipped_examples) == min(20, sum(result.accounts.skipped.values()))
    return result.picks, replace(result.accounts, skipped_examples=())


def parquet_shards(folder: Path, rows: list[Row], *, row_group: int, files: int) -> list[Shard]:
    for old in folder.glob("*.parquet"):
        old.unlink()
    size = max(1, -(-len(rows) // files))
    for start in range(0, max(len(rows), 1), size):
        write_parquet(folder / f"{start}.parquet", rows[start : start + size], row_group=row_group)
    return list(open_pool(str(folder), roots=AllowedRoots.anywhere()).shards)


def stream_shards(rows: list[Row], *, chunk: int) -> Iterator[Shard | None]:
    for seq, start in enumerate(range(0, len(rows), chunk)):
        part = rows[start : start + chunk]
        yield ChunkShard(seq, [id_ or "" for id_, _ in part], [image or b"" for _, image in part])
        if seq % 3 == 0:
            yield None
