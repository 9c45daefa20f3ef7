"""Variational adversarial active learning with the discriminator's score.

Sinha, Ebrahimi and Darrell, Variational adversarial active learning, ICCV 2019.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.strategies.strategy import PointwiseStrategy


class Vaal(PointwiseStrategy):
    """Pick the images that the discriminator classifies as unlabelled."""

    name = "vaal"
    needs = frozenset({"score"})

    def acquisition(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Return the logit of the discriminator's output, which is 0 for labelled and 1 for unlabelled."""
        return rows.score.astype(np.float64)
