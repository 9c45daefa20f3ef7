"""Predicted class probabilities, as the strategies that need them ask for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topb_scorer.errors import InvalidRequestError


def check_probabilities(probabilities: NDArray[np.float32], size: int) -> None:
    """Returns if `probabilities` is a float32 (size, C) array of numbers from 0 to 1, C ≥ 1.

    Raises:
        InvalidRequestError: with reason PROBABILITIES_SHAPE or PROBABILITIES_OUT_OF_RANGE.
    """
    if (
        probabilities.ndim != 2
        or len(probabilities) != size
        or probabilities.shape[1] == 0
        or probabilities.dtype != np.float32
    ):
        raise InvalidRequestError(
            f"probabilities are {probabilities.dtype} of shape {probabilities.shape}; "
            f"expected float32 ({size}, C) with C at least 1",
            reason="PROBABILITIES_SHAPE",
            shape=probabilities.shape,
        )
    if size and not (probabilities.min() >= 0 and probabilities.max() <= 1):
        row = int(np.argmin(((probabilities >= 0) & (probabilities <= 1)).all(axis=1)))
        raise InvalidRequestError(
            f"row {row} of the probabilities holds a value that is not between 0 and 1",
            reason="PROBABILITIES_OUT_OF_RANGE",
            row=row,
        )
