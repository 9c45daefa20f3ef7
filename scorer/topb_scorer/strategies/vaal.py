"""VAAL: how unlike the labelled images the discriminator finds an image.

Sinha, Ebrahimi and Darrell, Variational adversarial active learning, ICCV 2019.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.score_log import ScoredRows


def acquisition(rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:  # noqa: ARG001
    """The discriminator's score, in [0, 1]: 0 is labelled, 1 is unlabelled."""
    return rows.score.astype(np.float64)
