"""Entropy sampling.

Settles and Craven, An analysis of active learning strategies for sequence labeling tasks, EMNLP 2008.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.score_log import ScoredRows


def acquisition(rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:  # noqa: ARG001
    """Entropy of the predicted distribution, in nats."""
    return rows.entropy
