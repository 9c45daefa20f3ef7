"""What a GPU is good for: mixed precision, and data that lies where it is computed on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topb_trainer.config import MixedPrecision
from topb_trainer.errors import DeviceError

_RESIDENT_SHARE = 0.5
"""Of the device's free memory that images may take; the rest is for weights and activations."""


def torch_device(name: str) -> torch.device:
    """Returns the device of that name.

    Raises:
        DeviceError: there is no such device, or torch cannot use it; never the CPU in its place.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"{name!r} is no device; expected cpu, cuda or cuda:<index>", reason="DEVICE_UNKNOWN", device=name
        ) from error
    if device.type not in {"cpu", "cuda"}:
        raise DeviceError(
            f"{name!r} cannot be used; expected cpu, cuda or cuda:<index>", reason="DEVICE_UNKNOWN"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{name} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices; check the "
            "driver and that torch was built with CUDA",
            reason="DEVICE_UNAVAILABLE",
            device=name,
        )
    return device


def autocast(device: torch.device, mixed_precision: MixedPrecision) -> AbstractContextManager[Any]:
    """Returns the context of a forward pass: bfloat16 where it pays and is exact enough, else float32.

    "auto" is on for CUDA devices that compute in bfloat16, whose exponents need no loss scaling, and off
    elsewhere.
    """
    if mixed_precision == "auto":
        on = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        on = mixed_precision == "on"
    return torch.autocast(device.type, dtype=torch.bfloat16) if on else nullcontext()


def resident(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Returns images uint8 (N, H, W, 3) on `device` if they fit there, else in pinned memory of the host."""
    held = torch.from_numpy(images)
    if device.type == "cpu":
        return held
    free, _ = torch.cuda.mem_get_info(device)
    return held.to(device) if images.nbytes <= free * _RESIDENT_SHARE else held.pin_memory()
