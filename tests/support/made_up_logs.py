"""Logs with random features that are in no file, for tests and benchmarks of set-based selections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import never_cancelled
from topb_scorer.scoring.feature_log import FeatureLog
from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.selecting.kept_features import KeptFeatures


def made_up_scores(rows: int, *, part: int) -> Iterator[ScoredRows]:
    """Yield rows whose ids are their positions, in parts of the same size."""
    zeros = np.zeros(part)
    for start in range(0, rows, part):
        yield ScoredRows(
            ids=[f"{i:07d}" for i in range(start, start + part)],
            digests=np.zeros((part, 16), np.uint8),
            score=zeros.astype(np.float32),
            entropy=zeros,
            margin=zeros,
            confidence=zeros.astype(np.float32),
            predicted_class=zeros.astype(np.int32),
            skips={},
        )


@dataclass(frozen=True)
class MadeUpFeatures(KeptFeatures):
    """Random features of the rows of `made_up_scores`, one batch for each part. The log is not read."""

    width: int
    classes: int
    part: int

    def batches(self, shard: int) -> Iterator[Mapping[str, NDArray[np.float32]]]:
        """Yield the features of a part."""
        shape = (self.part, self.width)
        yield {"features": np.random.default_rng(shard).standard_normal(shape).astype(np.float32)}

    def probabilities(self, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the same probability for each class."""
        return np.full((len(outputs["features"]), self.classes), 1 / self.classes, np.float32)


def made_up_features(*, width: int, classes: int, part: int) -> MadeUpFeatures:
    """Return the features of the rows of `made_up_scores`."""
    return MadeUpFeatures(FeatureLog(Path("unused")), (), None, never_cancelled, width, classes, part)
