"""Choose the device of a training run, its precision, and the memory that holds the images."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from topb_trainer.config import MixedPrecision
from topb_trainer.errors import DeviceError

_RESIDENT_SHARE = 0.5
"""Largest share of the device's free memory that images may take: weights and activations need the rest."""


def torch_device(name: str) -> torch.device:
    """Return the device with this name, such as "cpu", "cuda" or "cuda:1".

    Raises:
        DeviceError: there is no such device, or torch cannot use it. The CPU never takes its place.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"{name!r} is not a device; expected cpu, cuda or cuda:<index>",
            reason="DEVICE_UNKNOWN",
            device=name,
        ) from error
    if device.type not in {"cpu", "cuda"}:
        raise DeviceError(
            f"{name!r} is not supported; expected cpu, cuda or cuda:<index>", reason="DEVICE_UNKNOWN"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{name} was requested, but torch sees {torch.cuda.device_count()} CUDA devices; check the "
            "driver and that torch was built with CUDA",
            reason="DEVICE_UNAVAILABLE",
            device=name,
        )
    return device


def autocast(device: torch.device, mixed_precision: MixedPrecision) -> AbstractContextManager[Any]:
    """Return the context manager of a forward pass, in bfloat16 or in float32.

    "auto" means bfloat16 on CUDA devices that support it, and float32 elsewhere. The exponent range of
    bfloat16 is that of float32, so gradients need no loss scaling.
    """
    if mixed_precision == "auto":
        enabled = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        enabled = mixed_precision == "on"
    return torch.autocast(device.type, dtype=torch.bfloat16) if enabled else nullcontext()


def resident(images: NDArray[Any], device: torch.device) -> Tensor:
    """Return images or features (N, …) on `device` if they fit there, otherwise where they are."""
    on_host = torch.from_numpy(images)
    if device.type == "cpu":
        return on_host
    free, _ = torch.cuda.mem_get_info(device)
    return on_host.to(device) if images.nbytes <= free * _RESIDENT_SHARE else on_host
