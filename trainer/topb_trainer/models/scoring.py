"""The scoring paths, each one graph, what a bundle holds: with an assistant, or of the task model alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topb_trainer.models.assistant import Assistant
from topb_trainer.models.resnet import ResNet18
from topb_trainer.models.vaal import VaalScoringModel
from topb_trainer.models.vae import Vae


class FeatureScaling(nn.Module):
    """(f − shift) / scale, what the VAE sees of the features."""

    shift: Tensor
    scale: Tensor

    def __init__(self, features: Tensor) -> None:
        """Takes mean and deviation of features (N, D); a constant feature keeps the scale 1."""
        super().__init__()
        deviation, mean = torch.std_mean(features.double(), dim=0, correction=0)  # (D), (D)
        self.register_buffer("shift", mean.float())
        self.register_buffer("scale", torch.where(deviation > 1e-6, deviation, 1.0).float())

    def forward(self, features: Tensor) -> Tensor:
        """Returns float (N, D) from float (N, D)."""
        return (features - self.shift) / self.scale


class ScoringModel(nn.Module):
    """Images to score, probabilities and features: the very numbers the assistant was trained on."""

    strategy = "aalu"
    score_meaning = "the assistant's: 0 is like the labelled, 1 is most worth labelling"

    def __init__(
        self, task_model: ResNet18, scaling: FeatureScaling | nn.Identity, vae: Vae, assistant: Assistant
    ) -> None:
        super().__init__()
        self.task_model = task_model
        self.scaling = scaling
        self.vae = vae
        self.assistant = assistant

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns score (N), probabilities (N, C), features (N, D), float32, of uint8 images (N, H, W, 3)."""
        features, logits = self.task_model(images)  # (N, D), (N, C)
        probabilities = logits.softmax(1)  # (N, C)
        latent = self.vae.encode_mean(self.scaling(features))  # (N, Z)
        score = self.assistant(latent, probabilities).sigmoid()  # (N)
        return score, probabilities, features


class TaskScoringModel(nn.Module):
    """The task model alone, for strategies that need no trained selector; its score is the entropy of p."""

    strategy = None
    score_meaning = "entropy of the task model's prediction, in nats: no selector was trained"

    def __init__(self, task_model: ResNet18) -> None:
        super().__init__()
        self.task_model = task_model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns score (N), probabilities (N, C), features (N, D), float32, of uint8 images (N, H, W, 3)."""
        features, logits = self.task_model(images)  # (N, D), (N, C)
        probabilities = logits.softmax(1)  # (N, C)
        score = -(probabilities * logits.log_softmax(1)).sum(1)  # (N)
        return score, probabilities, features


AnyScoringModel = ScoringModel | VaalScoringModel | TaskScoringModel
