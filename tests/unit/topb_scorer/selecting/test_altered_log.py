"""A score log whose files are altered after they were committed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.images import random_pool
from support.selecting import RecordingObserver, selected
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import UnreadablePoolError
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.scoring.model_logs import logs_below
from topb_scorer.selecting.selection import select_from_pool, select_from_stream
from topb_scorer.selecting.spec import SelectionSpec

pytestmark = pytest.mark.scorer

ROWS = random_pool(30)
SHARDS = [ChunkShard(i, [id_ for id_, _ in ROWS[i::3]], [image for _, image in ROWS[i::3]]) for i in range(3)]
SPEC = SelectionSpec(9, "entropy")


class Altering(RecordingObserver):
    """Truncates or overwrites one shard each time that the log is complete, at most so many times."""

    def __init__(self, log: Path, times: int) -> None:
        super().__init__()
        self._log = log
        self._times = times

    def on_complete(self, shards: int) -> None:
        assert shards == len(SHARDS)
        self._times -= 1
        if self._times >= 0:
            path = min(self._log.rglob("*.parquet"))
            content = path.read_bytes()
            path.write_bytes(content[:-9] if self._times % 2 else content[:20] + b"altered" + content[27:])


def test_an_altered_shard_of_a_pool_is_scored_again(engine: LocalEngine, tmp_path: Path) -> None:
    observer, logs = Altering(tmp_path, times=2), logs_below(tmp_path, needs_features=False)
    result = select_from_pool(
        SPEC,
        engine,
        SHARDS,
        logs,
        observer=observer,
        cancelled=threading.Event(),
    )
    assert result.picks == selected(SPEC, engine, SHARDS).picks
    assert len(observer.committed) == len(SHARDS) + 2
    assert sum(observer.rows) == len(ROWS)


@pytest.mark.parametrize(
    ("select", "times", "reason"),
    [
        pytest.param(select_from_pool, 1000, "SCORE_LOG_UNREADABLE", id="a-disk-that-alters-each-shard"),
        pytest.param(select_from_stream, 1, "STREAM_SCORES_LOST", id="a-stream-cannot-be-read-again"),
    ],
)
def test_scores_that_cannot_be_restored_are_an_error(
    engine: LocalEngine, tmp_path: Path, select: Callable[..., object], times: int, reason: str
) -> None:
    observer, logs = Altering(tmp_path, times), logs_below(tmp_path, needs_features=False)
    with pytest.raises(UnreadablePoolError) as caught:
        select(
            SPEC,
            engine,
            SHARDS,
            logs,
            observer=observer,
            cancelled=threading.Event(),
        )
    assert caught.value.reason == reason
