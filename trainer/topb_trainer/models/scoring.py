"""The scoring path: task model, encoder mean and assistant as one graph, what a bundle holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topb_trainer.models.assistant import Assistant
from topb_trainer.models.resnet import ResNet18
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
