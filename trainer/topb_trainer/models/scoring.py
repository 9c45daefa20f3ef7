"""The models that score images. A bundle holds one of them as two graphs, an encoder and a head.

The encoder maps images to features, and the head maps the encoder's outputs to score and probabilities. With
the same encoder, a later model computes only its head for a pool whose features are kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from topb_trainer.models.assistant import Assistant
from topb_trainer.models.task_network import TaskNetwork
from topb_trainer.models.vaal import Discriminator, ImageVae
from topb_trainer.models.vae import Vae

FeatureType = Literal["float32", "float16"]
Outputs = dict[str, Tensor]
"""Outputs by name, float32 (N, …)."""


def rounded(features: Tensor, feature_type: FeatureType) -> Tensor:
    """Return features, float32 (N, D), rounded to the given precision."""
    return features.half().float() if feature_type == "float16" else features


class FeatureScaling(nn.Module):
    """Standardises features to (f − shift) / scale before the VAE sees them."""

    shift: Tensor
    scale: Tensor

    def __init__(self, features: Tensor) -> None:
        """Set shift and scale to the mean and deviation of features (N, D). A constant feature has scale
        1."""
        super().__init__()
        deviation, mean = torch.std_mean(features.double(), dim=0, correction=0)  # (D), (D)
        self.register_buffer("shift", mean.float())  # (D)
        self.register_buffer("scale", torch.where(deviation > 1e-6, deviation, 1.0).float())  # (D)

    def forward(self, features: Tensor) -> Tensor:
        """Return standardised features, float (N, D), for features (N, D)."""
        return (features - self.shift) / self.scale  # (N, D)


class ScoringModel(nn.Module, ABC):
    """A task model T and, beside it, the networks that score."""

    strategy: ClassVar[str | None] = None
    """The query strategy that ranks by the output `score`; None without that output."""
    meanings: ClassVar[dict[str, str]] = {
        "features": "the task model's pooled features before its last layer",
        "probabilities": "the task model's prediction, by class",
    }
    """The outputs in words, by name."""

    def __init__(self, task_model: TaskNetwork) -> None:
        super().__init__()
        self.task_model = task_model
        self.feature_type: FeatureType = "float32"
        """The precision to which `encode` rounds features."""

    def encode(self, images: Tensor) -> Outputs:
        """Return at least `features`, float32 (N, D), for uint8 images (N, H, W, 3)."""
        return {"features": rounded(self.task_model.encode(images), self.feature_type)}  # (N, D)

    @abstractmethod
    def head(self, encoded: Outputs) -> Outputs:
        """Return `probabilities`, float32 (N, C), and, if there is a selector, `score`, float32 (N).

        Args:
            encoded: the outputs of `encode`.
        """

    def forward(self, images: Tensor) -> Outputs:
        """Return all outputs, of encoder and head, for uint8 images (N, H, W, 3)."""
        encoded = self.encode(images)
        return encoded | self.head(encoded)


class AssistantModel(ScoringModel):
    """T, the mean of the VAE's encoder and the assistant: score = logit of A([μ(f), p]).

    The logit gives the same order as A. In float32, the sigmoid of every logit above 17 is exactly 1, so
    ranking by A would leave the images most worth labelling to the tie-breaker.
    """

    strategy = "aalu"
    meanings: ClassVar[dict[str, str]] = ScoringModel.meanings | {
        "score": (
            "logit of the assistant's output A: the larger, the more worth labelling; "
            "A = 1 / (1 + exp(-score))"
        )
    }

    def __init__(
        self, task_model: TaskNetwork, scaling: FeatureScaling | nn.Identity, vae: Vae, assistant: Assistant
    ) -> None:
        super().__init__(task_model)
        self.scaling = scaling
        self.vae = vae
        self.assistant = assistant

    def head(self, encoded: Outputs) -> Outputs:
        """Return `score` (N), the assistant's logit, and `probabilities` (N, C)."""
        f = self.task_model.refine(encoded["features"])  # (N, F)
        probabilities = self.task_model.classifier(f).softmax(1)  # (N, C)
        latent = self.vae.encode_mean(self.scaling(f))  # (N, Z)
        return {"score": self.assistant(latent, probabilities), "probabilities": probabilities}  # (N), (N, C)


class VaalModel(ScoringModel):
    """T, the encoder of VAAL's VAE and the discriminator: score = logit of the discriminator."""

    strategy = "vaal"
    meanings: ClassVar[dict[str, str]] = ScoringModel.meanings | {
        "latent": "mean of the latent of VAAL's auto-encoder",
        "score": (
            "logit of the discriminator's output D: the larger, the less like the labelled images; "
            "D = 1 / (1 + exp(-score))"
        ),
    }

    def __init__(self, task_model: TaskNetwork, vae: ImageVae, discriminator: Discriminator) -> None:
        super().__init__(task_model)
        self.vae = vae
        self.discriminator = discriminator

    def encode(self, images: Tensor) -> Outputs:
        """Return `features` (N, D) and `latent` (N, Z), the mean of the encoder of VAAL's VAE."""
        return super().encode(images) | {"latent": self.vae.encode_mean(self.vae.view(images))}  # (N, Z)

    def head(self, encoded: Outputs) -> Outputs:
        """Return `score` (N), the discriminator's logit, and `probabilities` (N, C)."""
        score = self.discriminator(encoded["latent"])  # (N)
        probabilities = self.task_model.classifier(encoded["features"]).softmax(1)  # (N, C)
        return {"score": score, "probabilities": probabilities}


class TaskModel(ScoringModel):
    """T alone, for strategies that need no trained selector. It has no score."""

    def head(self, encoded: Outputs) -> Outputs:
        """Return `probabilities` (N, C)."""
        f = self.task_model.refine(encoded["features"])  # (N, F)
        return {"probabilities": self.task_model.classifier(f).softmax(1)}  # (N, C)
