"""What the model makes of a few images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class ImageScores:
    """What the model makes of one image. The arrays are read-only."""

    score: float
    """The assistant's, in [0, 1]: larger is more worth labelling."""
    probabilities: npt.NDArray[np.float32]
    """float32 (C): the task model's, over the bundle's classes."""
    features: npt.NDArray[np.float32] | None
    """float32 (D): the task model's, or None where they were not asked for."""
    entropy: float
    """Of `probabilities`, in nats."""
    model: str
    """Id of the model that scored."""

    @property
    def predicted_class(self) -> int:
        """Index into the bundle's classes of the most probable class."""
        return int(np.argmax(self.probabilities))


@dataclass(frozen=True, slots=True)
class SkippedImage:
    """An image that could not be scored, in the place of its scores."""

    reason: str
    """In UPPER_SNAKE_CASE, such as IMAGE_CORRUPT."""
    detail: str
    """What was wrong with it, for a person."""
