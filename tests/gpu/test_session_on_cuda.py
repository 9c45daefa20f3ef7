"""Scoring and selecting on a GPU agree with the CPU within rounding, and repeat exactly."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from support.bundles import write_bundle
from support.images import random_image, random_pool, write_parquet
from topb_scorer.bundle import open_bundle
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.pools import AllowedRoots, open_pool
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec

pytestmark = pytest.mark.gpu


def test_scores_on_a_gpu_agree_with_scores_on_the_cpu(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path))
    images = np.stack([random_image(i) for i in range(100)])
    on_cpu = LocalEngine(bundle).session.score(images)
    on_gpu = LocalEngine(bundle, EngineSettings(device="cuda:0")).session.score(images)

    for name, expected in on_cpu.items():
        np.testing.assert_allclose(on_gpu[name], expected, rtol=1e-3, atol=1e-4)


def test_a_repeated_selection_on_a_gpu_gives_the_same_result(tmp_path: Path) -> None:
    engine = LocalEngine(open_bundle(write_bundle(tmp_path)), EngineSettings(device="cuda:0"))
    path = write_parquet(tmp_path / "pool.parquet", random_pool(500))
    first, second = (
        select_from_pool(
            SelectionSpec(50),
            engine,
            open_pool(str(path), roots=AllowedRoots.anywhere()).shards,
            cancelled=threading.Event(),
        )
        for _ in range(2)
    )
    assert first.picks == second.picks
