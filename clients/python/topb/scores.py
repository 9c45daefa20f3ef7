"""The outcome of scoring single images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class ImageScores:
    """The model's outputs for one image. The arrays are read-only."""

    score: float | None
    """The model's own score; images with larger scores are more worth labelling. It is the logit of the
    output of the assistant, or of VAAL's discriminator; None if the model has neither."""
    probabilities: npt.NDArray[np.float32]
    """float32 (C): the task model's probabilities of the model's classes; C is 0 without a classifier."""
    features: npt.NDArray[np.float32] | None
    """float32 (D): the task model's features, or None if they were not requested."""
    entropy: float
    """Entropy of `probabilities`, in nats; 0 without a classifier."""
    model: str
    """Id of the model that computed the scores."""

    @property
    def predicted_class(self) -> int:
        """Index of the most probable class in `Model.classes`; -1 if the model has no classifier."""
        return int(np.argmax(self.probabilities)) if len(self.probabilities) else -1


@dataclass(frozen=True, slots=True)
class SkippedImage:
    """An image that could not be scored."""

    reason: str
    """Why it was skipped, in UPPER_SNAKE_CASE, such as IMAGE_CORRUPT."""
    detail: str
    """Why it was skipped, in words."""
