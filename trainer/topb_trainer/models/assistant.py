"""The active assistant A, which scores how much an image is worth labelling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from topb_trainer.models.mlp import mlp


class Assistant(nn.Module):
    """An MLP on m = [z, p], or on z alone if `prediction` is false.

    With two hidden sizes, the default, it has three layers, as in the paper.
    """

    def __init__(
        self, latent_size: int, class_count: int, hidden: Sequence[int], *, prediction: bool = True
    ) -> None:
        super().__init__()
        self.prediction = prediction
        self.layers = mlp([latent_size + (class_count if prediction else 0), *hidden, 1])

    def forward(self, latent: Tensor, probabilities: Tensor) -> Tensor:
        """Return logits, float (N). Their sigmoid is the output of A, which is 0 for labelled and 1 for
        unlabelled.

        Args:
            latent: float (N, Z), z.
            probabilities: float (N, C), p, the prediction of the task model.
        """
        m = torch.cat([latent, probabilities], dim=1) if self.prediction else latent  # (N, Z + C) or (N, Z)
        logits: Tensor = self.layers(m).squeeze(1)  # (N)
        return logits
