"""AALU: the active assistant's score, A(m) of Zhu and Wang's equation 9, on [encoder mean, prediction]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.score_log import ScoredRows


def acquisition(rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:  # noqa: ARG001
    """The assistant's score, in [0, 1]."""
    return rows.score.astype(np.float64)
