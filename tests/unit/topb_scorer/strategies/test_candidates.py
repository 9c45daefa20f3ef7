from __future__ import annotations

import numpy as np
import pytest

from topb_scorer.errors import InvalidRequestError
from topb_scorer.strategies import SetCandidates

pytestmark = pytest.mark.scorer

ROWS = np.zeros((5, 3), np.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": np.full((5, 3), np.nan, np.float32)}, "FEATURES_NOT_FINITE"),
        ({"features": np.zeros((5, 3))}, "FEATURES_DTYPE"),
        ({"labelled": np.zeros((1, 2), np.float32)}, "FEATURES_SHAPE"),
        ({"labelled": np.full((1, 3), np.inf, np.float32)}, "FEATURES_NOT_FINITE"),
        ({"probabilities": np.full((4, 3), 0.3, np.float32)}, "PROBABILITIES_SHAPE"),
        ({"probabilities": np.full((5, 3), 0.3)}, "PROBABILITIES_SHAPE"),
        ({"probabilities": np.full((5, 3), np.nan, np.float32)}, "PROBABILITIES_OUT_OF_RANGE"),
        ({"probabilities": np.full((5, 3), 1.5, np.float32)}, "PROBABILITIES_OUT_OF_RANGE"),
    ],
)
def test_arrays_that_no_strategy_can_use_are_refused(change: dict[str, np.ndarray], reason: str) -> None:
    good = {"features": ROWS, "labelled": ROWS[:0], "probabilities": ROWS, "scores": np.zeros(5)}
    with pytest.raises(InvalidRequestError) as refused:
        SetCandidates(**{**good, **change})
    assert refused.value.reason == reason
