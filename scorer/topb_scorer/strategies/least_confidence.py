"""Least confidence.

Lewis and Gale, A sequential algorithm for training text classifiers, SIGIR 1994.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.score_log import ScoredRows


def acquisition(rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:  # noqa: ARG001
    """One minus the first probability, in [0, 1]."""
    return 1.0 - rows.confidence.astype(np.float64)
