"""Least-confidence sampling.

Lewis and Gale, A sequential algorithm for training text classifiers, SIGIR 1994.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.strategies.strategy import PointwiseStrategy


class LeastConfidence(PointwiseStrategy):
    """Pick the images whose most probable class is the least probable."""

    name = "least_confidence"
    needs = frozenset({"probabilities"})

    def acquisition(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Return 1 − first probability, in [0, 1]."""
        return 1.0 - rows.confidence.astype(np.float64)
