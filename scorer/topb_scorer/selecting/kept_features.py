"""Read the features of a pool's rows from a feature log, and compute probabilities from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, checked
from topb_scorer.scoring.feature_log import FeatureLog
from topb_scorer.scoring.session import Float32Array, GraphSession


@dataclass(frozen=True)
class KeptFeatures:
    """The features of the shards of a pool. They are read in batches, so that few of them are in memory."""

    log: FeatureLog
    identities: Sequence[str]
    """The shards, in the order in which their scores are read."""
    head: GraphSession | None
    """The model's head; None if the model has only features."""
    check: Check
    """Called before each batch."""

    def batches(self, shard: int) -> Iterator[Mapping[str, Float32Array]]:
        """Yield the outputs of the encoder for the rows of a shard, float32 (n, …) by name, batch by batch.

        Args:
            shard: the index of the shard.

        Raises:
            AlteredShardError: the shard is missing, incomplete or altered.
        """
        return checked(self.log.read_outputs(self.identities[shard]), self.check)

    def probabilities(self, outputs: Mapping[str, Float32Array]) -> NDArray[np.float32]:
        """Return the class probabilities of one of the batches: float32 (n, C), C = 0 without a classifier.

        They are computed rather than kept, because the head is small and C may be large.
        """
        all_outputs = dict(outputs) if self.head is None else self.head.apply(outputs)
        return all_outputs.get("probabilities", np.zeros((len(outputs["features"]), 0), np.float32))
