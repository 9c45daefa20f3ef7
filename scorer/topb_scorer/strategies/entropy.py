"""Entropy sampling.

Settles and Craven, An analysis of active learning strategies for sequence labeling tasks, EMNLP 2008.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.strategies.strategy import PointwiseStrategy


class Entropy(PointwiseStrategy):
    """Pick the images whose predicted class distribution has the highest entropy."""

    name = "entropy"
    needs = frozenset({"probabilities"})

    def acquisition(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Return the entropy of the predicted distribution, in nats."""
        return rows.entropy
