"""AALU: the active assistant's score.

Zhu and Wang, Deep adversarial active learning with model uncertainty for image classification, section 2.3;
equation 9 is what the assistant A was trained on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.score_log import ScoredRows
from topb_scorer.strategies.strategy import PointwiseStrategy


class Aalu(PointwiseStrategy):
    """Pick the images that are least like the labelled ones and hardest for the task model."""

    name = "aalu"
    needs = frozenset({"score"})

    def acquisition(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Return the assistant's score A(m) in [0, 1]; m is the VAE's latent mean with T's prediction."""
        return rows.score.astype(np.float64)
