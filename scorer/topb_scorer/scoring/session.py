"""Run a model on batches of images in an ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, checked, never_cancelled
from topb_scorer.errors import DeviceError, InvalidRequestError
from topb_scorer.scoring.cores import usable_cores

OUTPUTS = ("score", "probabilities", "features")
"""The outputs of every model."""

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Buffers:
    """The memory for one batch of images and its outputs. Batches in flight do not share buffers."""

    images: NDArray[np.uint8]
    """uint8 (batch_size, height, width, 3), RGB."""
    outputs: Mapping[str, Float32Array]
    """Outputs by name, float32 (batch_size, …); valid after `ScoringSession.run`."""
    binding: Any
    """The ONNX Runtime IOBinding of these arrays."""


class ScoringSession:
    """Runs a graph in batches of one fixed size.

    With a fixed shape, ONNX Runtime searches for convolution algorithms and sizes its arena only once. A
    short batch leaves the rest of the buffers unchanged. The outputs of a row depend only on that row, not on
    its position in the batch.

    Attributes:
        batch_size: images per batch.
        image_shape: (height, width) of the images.
        output_shapes: shapes of the outputs for one image, by name.
    """

    def __init__(
        self,
        graph: Path | bytes,
        *,
        device: str = "cpu",
        batch_size: int = 32,
        threads: int | None = None,
    ) -> None:
        """Load the graph.

        Args:
            graph: an ONNX file or its bytes, with the input `images`, uint8 (N, height, width, 3), and
                float32 outputs.
            device: "cpu" or "cuda:<index>". There is no fallback to the CPU.
            batch_size: images per batch, at least 2, because ONNX Runtime uses other kernels for a single
                row, which round differently.
            threads: threads for one operator on the CPU; None for one per usable core.

        Raises:
            DeviceError: with reason DEVICE_UNKNOWN, DEVICE_UNAVAILABLE or SESSION_FAILED.
            InvalidRequestError: with reason BATCH_SIZE_TOO_SMALL.
        """
        if batch_size < 2:
            raise InvalidRequestError(
                f"the batch size is {batch_size}; expected at least 2",
                reason="BATCH_SIZE_TOO_SMALL",
                batch_size=batch_size,
            )
        self.batch_size = batch_size
        provider, provider_options = _provider(device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        # Spinning threads would occupy the cores that decode the next batch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        source = graph if isinstance(graph, bytes) else str(graph)
        try:
            self._session = ort.InferenceSession(source, options, providers=[(provider, provider_options)])
        except Exception as error:
            # ONNX Runtime's errors have no public base class in common.
            raise DeviceError(
                f"the graph cannot be loaded on {device}: {error}", reason="SESSION_FAILED", device=device
            ) from error
        self._session.disable_fallback()
        if self._session.get_providers()[0] != provider:
            raise DeviceError(
                f"ONNX Runtime fell back from {device} to {self._session.get_providers()[0]}; "
                "check the driver and the CUDA and cuDNN libraries",
                reason="DEVICE_UNAVAILABLE",
                device=device,
            )
        (self._input,) = self._session.get_inputs()
        self.image_shape: tuple[int, int] = (self._input.shape[1], self._input.shape[2])
        self.output_shapes: dict[str, tuple[int, ...]] = {
            output.name: tuple(output.shape[1:]) for output in self._session.get_outputs()
        }

    def new_buffers(self, outputs: Sequence[str]) -> Buffers:
        """Allocate and bind buffers for one batch. Only the given outputs are copied back from the device."""
        images = np.zeros((self.batch_size, *self.image_shape, 3), np.uint8)
        arrays = {
            name: np.zeros((self.batch_size, *self.output_shapes[name]), np.float32) for name in outputs
        }
        binding = self._session.io_binding()
        binding.bind_input(self._input.name, "cpu", 0, np.uint8, images.shape, images.ctypes.data)
        for name, array in arrays.items():
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return Buffers(images, arrays, binding)

    def run(self, buffers: Buffers) -> None:
        """Compute the outputs of the images in `buffers`. The GIL is released meanwhile."""
        self._session.run_with_iobinding(buffers.binding)

    def score(
        self,
        images: NDArray[np.uint8],
        outputs: Sequence[str] = OUTPUTS,
        *,
        check: Check = never_cancelled,
    ) -> dict[str, Float32Array]:
        """Return the outputs of any number of images.

        Args:
            images: uint8 (n, height, width, 3), RGB.
            outputs: names of outputs.
            check: called before each batch.

        Returns:
            the outputs by name, float32 (n, …).

        Raises:
            SelectionCancelledError: `check` raised it.
        """
        buffers = self.new_buffers(outputs)
        scored = {
            name: np.zeros((len(images), *array.shape[1:]), np.float32)
            for name, array in buffers.outputs.items()
        }
        for start in checked(range(0, len(images), self.batch_size), check):
            part = images[start : start + self.batch_size]
            buffers.images[: len(part)] = part
            self.run(buffers)
            for name, array in buffers.outputs.items():
                scored[name][start : start + len(part)] = array[: len(part)]
        return scored


def _provider(device: str) -> tuple[str, dict[str, str]]:
    kind, _, index = device.partition(":")
    if device == "cpu":
        return "CPUExecutionProvider", {}
    if kind == "cuda" and (index.isdecimal() or not index):
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise DeviceError(
                f"{device} needs onnxruntime-gpu; install topb[scorer-gpu] instead of topb[scorer]",
                reason="DEVICE_UNAVAILABLE",
                device=device,
            )
        ort.preload_dlls()
        options = {
            "device_id": index or "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",
        }
        return "CUDAExecutionProvider", options
    raise DeviceError(
        f"{device!r} is not a device; expected cpu, cuda or cuda:<index>",
        reason="DEVICE_UNKNOWN",
        device=device,
    )
