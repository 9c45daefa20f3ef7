"""The active assistant A: how unlike the labelled, and how hard for the task model, an image is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from topb_trainer.models.mlp import mlp


class Assistant(nn.Module):
    """An MLP, of three layers if `hidden` has two sizes, on m = [z, p]; on z alone if `prediction` is off."""

    def __init__(
        self, latent_size: int, class_count: int, hidden: Sequence[int], *, prediction: bool = True
    ) -> None:
        super().__init__()
        self.prediction = prediction
        self.layers = mlp([latent_size + (class_count if prediction else 0), *hidden, 1])

    def forward(self, latent: Tensor, probabilities: Tensor) -> Tensor:
        """Returns logits, float (N); their sigmoid is A's output: 0 labelled, 1 unlabelled.

        Args:
            latent: float (N, Z), z.
            probabilities: float (N, C), the task model's prediction p.
        """
        m = torch.cat([latent, probabilities], dim=1) if self.prediction else latent  # (N, Z + C) or (N, Z)
        logits: Tensor = self.layers(m).squeeze(1)  # (N)
        return logits
