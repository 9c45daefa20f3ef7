"""Active learning with the AALU assistant's score.

Zhu and Wang, Deep adversarial active learning with model uncertainty for image classification, section 2.3.
Equation 9 is the objective of the assistant A.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.strategies.strategy import PointwiseStrategy


class Aalu(PointwiseStrategy):
    """Pick images that are unlike the labelled ones and hard for the task model."""

    name = "aalu"
    needs = frozenset({"score"})

    def acquisition(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Return the logit of the assistant's output A(m). m is the VAE's latent mean with T's prediction."""
        return rows.score.astype(np.float64)
