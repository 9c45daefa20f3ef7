"""Selections from shards, and how they compare with the reference."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from support import reference_selection
from support.images import write_parquet
from support.reference_selection import Row
from topb.results import SelectionResult
from topb_scorer.engines.local import LocalEngine
from topb_scorer.pools import AllowedRoots, Shard, open_pool
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.scoring.score_log import ScoreLog
from topb_scorer.selecting.selection import select_from_shards, select_into_log
from topb_scorer.selecting.spec import SelectionSpec


def selected(
    spec: SelectionSpec,
    engine: LocalEngine,
    shards: Iterable[Shard | None],
    *,
    cancelled: threading.Event | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> SelectionResult:
    """From shards that can be read again."""
    return select_from_shards(spec, engine, shards, cancelled=cancelled or threading.Event(), on_rows=on_rows)


def streamed(
    spec: SelectionSpec,
    engine: LocalEngine,
    shards: Iterable[Shard | None],
    *,
    on_commit: Callable[[Shard], None] | None = None,
) -> SelectionResult:
    """From shards that come once, and are scored as they come."""
    with tempfile.TemporaryDirectory() as directory:
        log = ScoreLog(Path(directory), durable=False)
        cancelled = threading.Event()
        return select_into_log(
            spec, engine, shards, log, rereadable=False, cancelled=cancelled, on_commit=on_commit
        )


def assert_is(result: SelectionResult, expected: reference_selection.ReferenceSelection) -> None:
    picks = [
        (pick.id, pick.score, pick.predicted_class, pick.probability, pick.entropy) for pick in result.picks
    ]
    assert picks == [
        (row.id, row.score, row.predicted_class, row.probability, row.entropy) for row in expected.picks
    ]
    assert [pick.rank for pick in result.picks] == list(range(1, len(picks) + 1))
    accounts = result.accounts
    assert accounts.read == expected.read
    assert accounts.scored == expected.scored
    assert dict(accounts.skipped) == dict(expected.skipped)
    assert accounts.duplicate == expected.duplicate
    assert accounts.excluded == expected.excluded
    assert accounts.read == (
        accounts.scored + sum(accounts.skipped.values()) + accounts.duplicate + accounts.excluded
    )
    assert len(accounts.skipped_examples) == min(20, sum(accounts.skipped.values()))


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
