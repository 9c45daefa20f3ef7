"""The models that score images. A bundle holds one of them as a graph.

Each maps images to score, probabilities and features. The model of VAAL is in `models/vaal.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topb_trainer.models.assistant import Assistant
from topb_trainer.models.resnet import ResNet18
from topb_trainer.models.vaal import VaalScoringModel
from topb_trainer.models.vae import Vae


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


class ScoringModel(nn.Module):
    """T, the mean of the VAE's encoder and the assistant in one module: score = logit of A([μ(f), p]).

    The logit gives the same order as A. In float32, the sigmoid of every logit above 17 is exactly 1, so
    ranking by A would leave the images most worth labelling to the tie-breaker.
    """

    strategy = "aalu"
    score_meaning = (
        "logit of the assistant's output A: the larger, the more worth labelling; A = 1 / (1 + exp(-score))"
    )

    def __init__(
        self, task_model: ResNet18, scaling: FeatureScaling | nn.Identity, vae: Vae, assistant: Assistant
    ) -> None:
        super().__init__()
        self.task_model = task_model
        self.scaling = scaling
        self.vae = vae
        self.assistant = assistant

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score (N), probabilities (N, C) and features (N, D), float32, for uint8 (N, H, W, 3)."""
        features, logits = self.task_model(images)  # (N, D), (N, C)
        probabilities = logits.softmax(1)  # (N, C)
        latent = self.vae.encode_mean(self.scaling(features))  # (N, Z)
        score = self.assistant(latent, probabilities)  # (N)
        return score, probabilities, features  # (N), (N, C), (N, D)


class TaskScoringModel(nn.Module):
    """T alone, for strategies that need no trained selector; the score is the entropy of p."""

    strategy = None
    score_meaning = "entropy of the task model's prediction in nats, as no selector was trained"

    def __init__(self, task_model: ResNet18) -> None:
        super().__init__()
        self.task_model = task_model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score (N), probabilities (N, C) and features (N, D), float32, for uint8 (N, H, W, 3)."""
        features, logits = self.task_model(images)  # (N, D), (N, C)
        probabilities = logits.softmax(1)  # (N, C)
        score = -(probabilities * logits.log_softmax(1)).sum(1)  # (N)
        return score, probabilities, features  # (N), (N, C), (N, D)


AnyScoringModel = ScoringModel | VaalScoringModel | TaskScoringModel
