"""One ONNX Runtime session on one device: uint8 batches in, scores out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from topb_scorer.errors import DeviceError, InvalidRequestError, SelectionCancelledError
from topb_scorer.scoring.cores import usable_cores

OUTPUTS = ("score", "probabilities", "features")

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Buffers that a session reads from and writes to; a new one for each batch under way."""

    images: NDArray[np.uint8]
    """(batch_size, height, width, 3), RGB; rows beyond the count that is run are ignored."""
    outputs: Mapping[str, Float32Array]
    """By name, (batch_size, …); valid after `ScoringSession.run` for the rows that were run."""
    binding: Any
    """ONNX Runtime's binding of these buffers."""


class ScoringSession:
    """Runs a graph in batches of one fixed size.

    One shape means one search for convolution algorithms and one arena size; a short batch is padded.
    A row's outputs depend on that row alone, so neither the batch size nor a row's place changes them.
    """

    def __init__(
        self,
        graph: Path | bytes,
        *,
        device: str = "cpu",
        batch_size: int = 32,
        threads: int | None = None,
    ) -> None:
        """Loads the graph.

        Args:
            graph: an ONNX file, or its bytes: input `images` uint8 (N, height, width, 3), float32 outputs.
            device: "cpu" or "cuda:<index>".
            batch_size: images a run, at least 2: a single row takes other kernels, whose rounding differs.
            threads: for one operator on the CPU; None: one a core this process may use.

        Raises:
            DeviceError: the device is not one, or cannot be used; never falls back to the CPU.
            InvalidRequestError: the batch size is below 2.
        """
        if batch_size < 2:
            raise InvalidRequestError(
                f"batch size {batch_size}; expected at least 2",
                reason="BATCH_SIZE_TOO_SMALL",
                batch_size=batch_size,
            )
        self.device = device
        self.batch_size = batch_size
        provider, provider_options = _provider(device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        # Spinning threads would take the cores that decode the next batch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        source = graph if isinstance(graph, bytes) else str(graph)
        try:
            self._session = ort.InferenceSession(source, options, providers=[(provider, provider_options)])
        except Exception as error:
            # Its errors share no public root; what they say is what matters.
            raise DeviceError(
                f"the graph cannot be loaded on {device}: {error}", reason="SESSION_FAILED", device=device
            ) from error
        self._session.disable_fallback()
        if self._session.get_providers()[0] != provider:
            raise DeviceError(
                f"{device} was asked for, but ONNX Runtime fell back to {self._session.get_providers()[0]}; "
                "check the driver and the CUDA and cuDNN libraries",
                reason="DEVICE_UNAVAILABLE",
                device=device,
            )
        (self._input,) = self._session.get_inputs()
        self.image_shape: tuple[int, int] = (self._input.shape[1], self._input.shape[2])
        self.output_shapes: dict[str, tuple[int, ...]] = {
            output.name: tuple(output.shape[1:]) for output in self._session.get_outputs()
        }

    def new_batch(self, outputs: Sequence[str]) -> Batch:
        """Buffers for one batch, bound once; only `outputs`, by name, are brought back from the device."""
        images = np.zeros((self.batch_size, *self.image_shape, 3), np.uint8)
        buffers = {
            name: np.zeros((self.batch_size, *self.output_shapes[name]), np.float32) for name in outputs
        }
        binding = self._session.io_binding()
        binding.bind_input(self._input.name, "cpu", 0, np.uint8, images.shape, images.ctypes.data)
        for name, buffer in buffers.items():
            binding.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        return Batch(images, buffers, binding)

    def run(self, batch: Batch) -> None:
        """Fills the batch's outputs from its images. Lets other Python threads run meanwhile."""
        self._session.run_with_iobinding(batch.binding)

    def score(
        self,
        images: NDArray[np.uint8],
        outputs: Sequence[str] = OUTPUTS,
        *,
        cancelled: threading.Event | None = None,
    ) -> dict[str, Float32Array]:
        """Outputs by name, (n, …), of uint8 images (n, height, width, 3), n being any number.

        Raises:
            SelectionCancelledError: `cancelled`, looked at before each batch, was set.
        """
        batch = self.new_batch(outputs)
        scored = {
            name: np.zeros((len(images), *buffer.shape[1:]), np.float32)
            for name, buffer in batch.outputs.items()
        }
        for start in range(0, len(images), self.batch_size):
            if cancelled is not None and cancelled.is_set():
                raise SelectionCancelledError
            part = images[start : start + self.batch_size]
            batch.images[: len(part)] = part
            self.run(batch)
            for name, buffer in batch.outputs.items():
                scored[name][start : start + len(part)] = buffer[: len(part)]
        return scored


def _provider(device: str) -> tuple[str, dict[str, str]]:
    kind, _, index = device.partition(":")
    if device == "cpu":
        return "CPUExecutionProvider", {}
    if kind == "cuda" and (index.isdecimal() or not index):
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise DeviceError(
                f"{device} was asked for, but this onnxruntime has no CUDA: install topb[scorer-gpu] "
                "in place of topb[scorer]",
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
        f"{device!r} is no device; expected cpu, cuda or cuda:<index>", reason="DEVICE_UNKNOWN", device=device
    )
