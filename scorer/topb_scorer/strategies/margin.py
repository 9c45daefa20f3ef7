"""Margin sampling.

Scheffer, Decomain and Wrobel, Active hidden Markov models for information extraction, IDA 2001.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.strategies.strategy import PointwiseStrategy


class Margin(PointwiseStrategy):
    """Pick the images whose two most probable classes are the closest."""

    name = "margin"
    needs = frozenset({"probabilities"})

    def acquisition(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Return 1 − (first − second probability), in [0, 1]."""
        return 1.0 - rows.margin
