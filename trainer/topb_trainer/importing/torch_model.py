"""Import a model in torch: the user's own module, or one of timm. It is exported to ONNX first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topb_trainer.encoders.factory import FactoryEncoder
from topb_trainer.encoders.timm_model import TimmEncoder
from topb_trainer.errors import ModelImportError
from topb_trainer.export.graph import module_graph
from topb_trainer.importing.input_rule import InputOptions, Size
from topb_trainer.importing.onnx_file import simplified
from topb_trainer.importing.onnx_model import (
    ChosenValues,
    ImportedModel,
    Outputs,
    bundle_outputs,
    import_onnx,
)

_BATCH = 8
_EXAMPLES = 2


@dataclass(frozen=True)
class TorchModel:
    """A module, and what is known about the images that it takes."""

    module: nn.Module
    """Maps normalised images, float32 (N, 3, H, W), to features (N, D), alone, or with logits (N, C) in a
    tuple or a dict."""
    options: InputOptions
    place: str
    """Where it comes from."""


def torch_module(place: str, weights: Path | None, options: InputOptions) -> TorchModel:
    """Return the module that the function `package.module:factory` makes.

    Raises:
        ConfigurationError: the function or the weights cannot be used.
        ModelImportError: with reason IMPORT_SIZE, because nothing says which images it takes.
    """
    size = _required_size(options)
    encoder = FactoryEncoder(place, None if weights is None else str(weights))
    return TorchModel(encoder.backbone(*size), replace(options, layout="nchw"), place)


def timm_model(name: str, weights: str, options: InputOptions) -> TorchModel:
    """Return a model of timm, with its classifier if the weights have one, and its own input rule.

    Args:
        name: its name in timm.
        weights: a file, "pretrained" or "random".
        options: what overrides the model's own rule.

    Raises:
        ConfigurationError: there is no such model, or its weights cannot be used.
    """
    encoder = TimmEncoder(name, weights)
    own = encoder.preprocessing
    options = replace(options, layout="nchw").over(
        InputOptions(size=own.size, resize=own.resize, mean=own.mean, std=own.deviation)
    )
    return TorchModel(encoder.classifying(*_required_size(options)), options, f"timm {name}")


def import_torch(model: TorchModel) -> ImportedModel:
    """Make the graphs of a bundle from a module. The bundle is compared with the module itself.

    Raises:
        ConfigurationError: with reason ENCODER_NOT_EXPORTABLE.
        ModelImportError: the module gives something else than features and logits, or cannot be imported.
    """
    images = torch.zeros(_EXAMPLES, 3, *_required_size(model.options))  # (2, 3, H, W)
    part = _Outputs(model.module)
    names = part.names_for(images)
    proto = onnx.load_model_from_string(module_graph(part, {"images": images}, names))
    chosen = ChosenValues("features", logits="logits" if "logits" in names else None)
    imported = import_onnx(simplified(ir.from_proto(proto)), chosen, model.options)

    @torch.no_grad()
    def original(pixels: NDArray[np.uint8]) -> Outputs:
        rows = torch.from_numpy(imported.rule.apply(pixels))
        parts = [part(rows[start : start + _BATCH]) for start in range(0, len(rows), _BATCH)]
        values = {
            name: torch.cat(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)
        }
        return bundle_outputs({name: tensor.float().numpy() for name, tensor in values.items()}, chosen)

    return replace(imported, original=original, settings=imported.settings | {"place": model.place})


class _Outputs(nn.Module):
    """Gives the features and the logits of a module by position."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (images,) = inputs
        return tuple(_by_name(self.module(images)).values())

    @torch.no_grad()
    def names_for(self, images: Tensor) -> Sequence[str]:
        """Return the names of what the module gives for images (N, 3, H, W)."""
        try:
            return list(_by_name(self.module(images)))
        except Exception as error:
            # A module of the user raises whatever it likes.
            raise ModelImportError(
                f"for float32 images {tuple(images.shape)}, the module failed: {type(error).__name__}: "
                f"{error}; expected features (N, D), alone, or with logits (N, C) in a tuple or under the "
                "keys 'features' and 'logits' of a dict",
                reason="IMPORT_GRAPH",
            ) from error


def _by_name(outputs: Any) -> dict[str, Tensor]:
    if isinstance(outputs, dict):
        found = {name: outputs[name] for name in ("features", "logits") if name in outputs}
    elif isinstance(outputs, (tuple, list)):
        found = dict(zip(("features", "logits"), outputs, strict=False))
    else:
        found = {"features": outputs}
    if "features" not in found or not all(isinstance(value, Tensor) for value in found.values()):
        raise TypeError(f"it gave a {type(outputs).__name__} without features")
    return found


def _required_size(options: InputOptions) -> Size:
    if options.size is None:
        raise ModelImportError(
            "a torch module does not tell the size of its images; give it, such as --size 224",
            reason="IMPORT_SIZE",
        )
    return options.size
