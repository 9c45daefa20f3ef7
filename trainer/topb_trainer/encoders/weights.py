"""Load weights into a module from a file that holds nothing but tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topb_trainer.errors import ConfigurationError

_CONTAINERS = ("state_dict", "model")
"""Keys under which training programs commonly keep a state dict."""
_PARALLEL = "module."
"""What torch's parallel wrappers put before each name."""
_COUNTERS = ".num_batches_tracked"
"""Counters of batch norm, which old files lack and inference does not use."""
_SHOWN = 3


def load_weights(module: nn.Module, path: Path, *, ignored: Collection[str] = ()) -> None:
    """Load the weights in a .safetensors or .pth file into a module. No code in the file is run.

    Args:
        module: the module, whose names and shapes the file must have.
        path: the file. A .pth file may hold the weights under the key "state_dict" or "model".
        ignored: prefixes of names that the file may have in addition, such as those of a classifier.

    Raises:
        ConfigurationError: with reason WEIGHTS_UNREADABLE, or WEIGHTS_MISMATCH if names or shapes differ.
    """
    found, expected = read_tensors(path), module.state_dict()
    missing = [name for name in expected if name not in found and not name.endswith(_COUNTERS)]
    unknown = [name for name in found if name not in expected and not name.startswith(tuple(ignored))]
    shapes = [
        f"{name} is {tuple(found[name].shape)} and should be {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    if missing or unknown or shapes:
        faults = (("it lacks", missing), ("the encoder has no", unknown), ("", shapes))
        told = "; ".join(f"{what} {_some(names)}".strip() for what, names in faults if names)
        raise ConfigurationError(
            f"{path} holds the weights of another architecture than the encoder: {told}; give the encoder "
            "to which the weights belong",
            reason="WEIGHTS_MISMATCH",
            path=path,
        )
    module.load_state_dict({name: found[name] for name in expected if name in found}, strict=False)


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Return the tensors in a .safetensors or .pth file by name. No code in the file is run.

    Raises:
        ConfigurationError: with reason WEIGHTS_UNREADABLE.
    """
    try:
        content = _read(path)
    except ConfigurationError:
        raise
    except Exception as error:
        # The archive, the pickle, safetensors and the file system raise errors of many types.
        untrusted = "Weights only load failed" in str(error)
        why = (
            "it is a pickle of more than tensors, which could run any code when it is loaded; save the "
            "weights alone: torch.save(model.state_dict(), path)"
            if untrusted
            else f"{error}; expected a .safetensors file, or one of torch.save(model.state_dict(), path)"
        )
        raise ConfigurationError(
            f"the weights in {path} cannot be read: {why}", reason="WEIGHTS_UNREADABLE", path=path
        ) from error
    for key in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not (
        isinstance(content, Mapping) and content and all(isinstance(v, Tensor) for v in content.values())
    ):
        raise ConfigurationError(
            f"{path} does not hold weights by name, but a {type(content).__name__}; expected a .safetensors "
            "file, or one of torch.save(model.state_dict(), path)",
            reason="WEIGHTS_UNREADABLE",
            path=path,
        )
    if all(name.startswith(_PARALLEL) for name in content):
        return {name.removeprefix(_PARALLEL): value for name, value in content.items()}
    return content


def _read(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConfigurationError(
            f"{path} needs the package safetensors: pip install topb[timm]", reason="EXTRA_MISSING"
        ) from error
    return load_file(path)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
