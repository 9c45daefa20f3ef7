from __future__ import annotations

import onnxruntime
import pytest


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    """Skip the tests if ONNX Runtime has no CUDA or finds no device."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA: install topb[scorer-gpu] in place of topb[scorer]")
    onnxruntime.preload_dlls()
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == "CUDAExecutionProvider"]
    if not devices:
        pytest.skip("no CUDA device here")
