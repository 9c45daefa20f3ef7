"""The number of threads of BLAS and OpenMP changes no bit of a result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.selecting import set_candidates
from topb_scorer.strategies import SetBasedStrategy, configured, names

pytestmark = [pytest.mark.scorer, pytest.mark.slow]

STRATEGIES = [name for name in names() if isinstance(configured(name, {}), SetBasedStrategy)]


def batches() -> dict[str, list[object]]:
    """Return the picks, scores and measures of each set-based strategy, with every bit of each number."""
    random = np.random.default_rng(5)
    middles = random.standard_normal((40, 130))
    # A product of 9000 rows is divided among threads, and 130 columns leave a rest in each kernel.
    rows = middles[random.integers(0, 40, 9000)] + 0.3 * random.standard_normal((9000, 130))
    features = rows.astype(np.float32)
    probabilities = random.dirichlet(np.full(7, 0.3), 9000).astype(np.float32)
    scores = random.permutation(9000).astype(np.float64)
    strategies = {name: configured(name, {}) for name in STRATEGIES}
    strategies["diversified"] = configured("margin", {"diversify": "30", "score_weight": "0.5"})
    found: dict[str, list[object]] = {}
    for known, budget in ((0, 60), (0, 500), (400, 60)):
        size = 9000 - known
        candidates = set_candidates(features[:size], features[size:], probabilities[:size], scores[:size])
        for name, strategy in strategies.items():
            assert isinstance(strategy, SetBasedStrategy)
            batch = strategy.select(candidates, budget=budget, seed=3)
            numbers = [batch.scores, np.empty(0) if batch.radii is None else batch.radii]
            bits = [array.tobytes().hex() for array in (*numbers, np.array(list(batch.measures.values())))]
            found[f"{name}, {known} labelled, budget {budget}"] = [batch.indices.tolist(), *bits]
    return found


def batches_with(threads: int) -> dict[str, list[object]]:
    """Return `batches()` of a new process with a number of threads."""
    number = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    paths = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, **number, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[object]] = json.loads(done.stdout)
    return found


def test_one_thread_and_two_pick_the_same_rows_with_the_same_scores() -> None:
    one, two = batches_with(1), batches_with(2)
    assert {name for name in one if one[name] != two[name]} == set()
    assert len(one) == 3 * (len(STRATEGIES) + 1)


if __name__ == "__main__":
    json.dump(batches(), sys.stdout)
