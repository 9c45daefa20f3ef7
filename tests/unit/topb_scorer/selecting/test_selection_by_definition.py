from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import reference_selection
from support.bundles import STRATEGIES
from support.images import encode, random_image
from support.reference_selection import ReferenceScorer, Row
from support.selecting import (
    RecordingObserver,
    outcome,
    parquet_shards,
    selected,
    stream_shards,
    streamed,
)
from topb.results import Accounts, Pick, SelectionResult
from topb_scorer.bundle import Bundle
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.errors import SelectionCancelledError
from topb_scorer.pools import Shard, content_digest
from topb_scorer.pools.pool import NO_DIGEST
from topb_scorer.scoring.model_logs import logs_below
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec

pytestmark = pytest.mark.scorer

VALID = [encode(random_image(seed), format_) for seed in range(6) for format_ in ("PNG", "JPEG")]
IMAGES: list[bytes | None] = [
    *VALID,
    encode(random_image(3, 40, 23), "WEBP"),
    encode(np.zeros((16, 16, 3), np.uint8)),
    encode(np.zeros((20, 20, 3), np.uint8)),
    VALID[0][:-30],
    b"no image",
    b"",
    None,
]
IDS = ["a", "b", "c", "d", "e", "aa", "é", "日本", "10", "9", *(f"id-{i}" for i in range(20))]

rows_of_a_pool = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(IDS), st.sampled_from(IDS), st.sampled_from([None, ""])),
        st.sampled_from(IMAGES),
    ),
    max_size=50,
)


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> ReferenceScorer:
    return ReferenceScorer(bundle)


@pytest.fixture(scope="module")
def engine_with(bundle: Bundle) -> Callable[[int, int, int], LocalEngine]:
    @cache
    def engine(batch_size: int, decode_threads: int, session_threads: int) -> LocalEngine:
        return LocalEngine(
            bundle,
            EngineSettings(
                batch_size=batch_size, decode_threads=decode_threads, session_threads=session_threads
            ),
        )

    return engine


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@dataclass
class CutOff(RecordingObserver):
    """Cancels a selection once it has done more than so many rows, or commits."""

    by_commits: bool = False
    most: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.then_on_rows = self.then_on_commit = self._check

    def _check(self, _: object) -> None:
        if (len(self.committed) if self.by_commits else sum(self.rows)) > self.most:
            self.cancelled.set()


def resumed(
    spec: SelectionSpec, engine: LocalEngine, shards: Sequence[Shard], cut_offs: Iterable[tuple[bool, int]]
) -> SelectionResult:
    """Select into one log that lasts: cut off as often as there are cut-offs, then to the end.

    No shard may be scored again once it is committed.
    """
    committed: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        logs = logs_below(Path(directory), needs_features=spec.needs_features, durable=False)

        def select(cut_off: CutOff) -> SelectionResult:
            try:
                return select_from_pool(
                    spec, engine, shards, logs, observer=cut_off, cancelled=cut_off.cancelled
                )
            finally:
                committed.extend(cut_off.committed)

        for by_commits, most in cut_offs:
            with suppress(SelectionCancelledError):
                select(CutOff(by_commits=by_commits, most=most))
        result = select(CutOff(by_commits=True, most=len(shards)))
    assert sorted(committed) == sorted({shard.identity for shard in shards})
    return result


# What must not show in the result: how the pool is stored, how it is scored, and where it is cut off.
ways = st.fixed_dictionaries(
    {
        "row_group": st.sampled_from([1, 2, 5, 64]),
        "files": st.integers(1, 3),
        "chunk": st.integers(1, 20),
        "engine": st.tuples(st.sampled_from([2, 3, 7, 32]), st.sampled_from([1, 3]), st.sampled_from([1, 2])),
        "cut_offs": st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=3),
    }
)


@pytest.mark.slow
@given(
    rows=rows_of_a_pool,
    budget=st.integers(1, 60),
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 2**64 - 1),
    exclude=st.dictionaries(
        st.sampled_from([*IDS, "elsewhere", ""]),
        st.sampled_from([None, None, None, *VALID, b"no image", b"not in the pool"]),
        max_size=8,
    ),
    shuffler=st.randoms(use_true_random=False),
    way=ways,
)
@settings(max_examples=60, deadline=None)
def test_every_way_to_run_a_selection_gives_the_defined_result(
    reference: ReferenceScorer,
    engine_with: Callable[[int, int, int], LocalEngine],
    scratch: Path,
    rows: list[Row],
    budget: int,
    strategy: str,
    seed: int,
    exclude: dict[str, bytes | None],
    shuffler: random.Random,
    way: dict[str, Any],
) -> None:
    digests = {id_: NO_DIGEST if image is None else content_digest(image) for id_, image in exclude.items()}
    spec = SelectionSpec(budget, strategy, seed, digests)
    engine = engine_with(*way["engine"])

    def expected(rows: list[Row]) -> tuple[tuple[Pick, ...], Accounts]:
        return reference_selection.select(
            rows, reference, budget=budget, strategy=strategy, seed=seed, exclude=exclude
        )

    shards = parquet_shards(scratch, rows, row_group=way["row_group"], files=way["files"])
    assert outcome(selected(spec, engine, shards)) == expected(rows)
    assert outcome(resumed(spec, engine, shards, way["cut_offs"])) == expected(rows)
    shuffler.shuffle(rows)
    shards = parquet_shards(scratch, rows, row_group=64, files=1)
    assert outcome(selected(spec, engine, shards)) == expected(rows)
    # In a stream, a missing image cannot be told from one without bytes.
    sent = [(id_, image or b"") for id_, image in rows]
    assert outcome(streamed(spec, engine, stream_shards(sent, chunk=way["chunk"]))) == expected(sent)
