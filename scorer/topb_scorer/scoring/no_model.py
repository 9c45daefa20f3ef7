"""Select from a pool of vectors without a model: what the pool has takes the place of a model's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle
from topb_scorer.pools.vectors import VectorLayout

NO_MODEL = "none"
"""Stands for the id of the model in requests, results, records and score logs. No model has this id."""


@dataclass(frozen=True)
class NoModel(Bundle):
    """Takes the place of a bundle. It has neither graphs nor files, and no labelled set."""

    @classmethod
    def with_outputs_of(cls, layout: VectorLayout) -> NoModel:
        """Return the one whose outputs are the vectors of a pool and, if it has them, the probabilities."""
        features = bundle_pb2.ModelOutput(name="features", shape=[layout.width])
        probabilities = bundle_pb2.ModelOutput(name="probabilities", shape=[layout.classes])
        outputs = [features, probabilities] if layout.classes else [features]
        manifest = bundle_pb2.Bundle(model_id=NO_MODEL, outputs=outputs, encoder_outputs=outputs)
        return cls(Path(), manifest)

    def labelled_digests(self) -> dict[str, bytes]:
        """Return nothing: there is no labelled set."""
        return {}

    def labelled_features(self) -> NDArray[np.float32]:
        """Return float32 (0, D)."""
        return np.zeros((0, *self.output_shape("features")), np.float32)
