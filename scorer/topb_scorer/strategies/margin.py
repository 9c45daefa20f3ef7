"""Margin sampling.

Scheffer, Decomain and Wrobel, Active hidden Markov models for information extraction, IDA 2001.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.score_log import ScoredRows


def acquisition(rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:  # noqa: ARG001
    """One minus the gap between the first and the second probability, in [0, 1]."""
    return 1.0 - rows.margin
