"""What a query strategy is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from topb_scorer.score_log import ScoredRows


class PointwiseStrategy(Protocol):
    """Values each image by itself; the b of the highest acquisition scores are picked."""

    def __call__(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Acquisition scores float64 (n), larger picked first; each a function of its row and the seed."""
