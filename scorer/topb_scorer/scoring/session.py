"""Run an ONNX graph on batches of rows in an ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, checked, never_cancelled
from topb_scorer.errors import DeviceError, InvalidRequestError
from topb_scorer.scoring.cores import usable_cores

Float32Array = NDArray[np.float32]
Array = NDArray[Any]

_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


@dataclass(frozen=True)
class Buffers:
    """The memory for one batch of rows and their outputs. Batches in flight do not share buffers."""

    inputs: Mapping[str, Array]
    """Inputs by name, uint8 or float32 (batch_size, …)."""
    outputs: Mapping[str, Float32Array]
    """Outputs by name, float32 (batch_size, …); valid after `GraphSession.run`."""
    binding: Any
    """The ONNX Runtime IOBinding of these arrays."""


class GraphSession:
    """Runs a graph in batches of one fixed size.

    With a fixed shape, ONNX Runtime searches for convolution algorithms and sizes its arena only once. A
    short batch leaves the rest of the buffers unchanged. The outputs of a row depend only on that row, not on
    its position in the batch.

    Attributes:
        batch_size: rows per batch.
        input_shapes: shapes of the inputs for one row, by name.
        output_shapes: shapes of the outputs for one row, by name.
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
            graph: an ONNX file or its bytes, with inputs of uint8 or float32 (N, …) and float32 outputs.
            device: "cpu" or "cuda:<index>". There is no fallback to the CPU.
            batch_size: rows per batch, at least 2, because ONNX Runtime uses other kernels for a single
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
        inputs = self._session.get_inputs()
        self._input_dtypes = {input_.name: _DTYPES.get(input_.type, np.float32) for input_ in inputs}
        self.input_shapes: dict[str, tuple[int, ...]] = {
            input_.name: tuple(input_.shape[1:]) for input_ in inputs
        }
        self.output_shapes: dict[str, tuple[int, ...]] = {
            output.name: tuple(output.shape[1:]) for output in self._session.get_outputs()
        }

    def new_buffers(self) -> Buffers:
        """Allocate and bind buffers for one batch."""
        inputs = {
            name: np.zeros((self.batch_size, *shape), self._input_dtypes[name])
            for name, shape in self.input_shapes.items()
        }
        outputs = {
            name: np.zeros((self.batch_size, *shape), np.float32)
            for name, shape in self.output_shapes.items()
        }
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return Buffers(inputs, outputs, binding)

    def run(self, buffers: Buffers) -> None:
        """Compute the outputs of the rows in `buffers`. The GIL is released meanwhile."""
        self._session.run_with_iobinding(buffers.binding)

    def apply(
        self, inputs: Mapping[str, Array], *, check: Check = never_cancelled
    ) -> dict[str, Float32Array]:
        """Return the outputs of any number of rows.

        Args:
            inputs: arrays (n, …) by name. Those that the graph does not take are ignored.
            check: called before each batch.

        Returns:
            the outputs by name, float32 (n, …).

        Raises:
            SelectionCancelledError: `check` raised it.
        """
        buffers = self.new_buffers()
        rows = len(inputs[next(iter(self.input_shapes))])
        outputs = {
            name: np.zeros((rows, *array.shape[1:]), np.float32) for name, array in buffers.outputs.items()
        }
        for start in checked(range(0, rows, self.batch_size), check):
            count = min(self.batch_size, rows - start)
            for name, array in buffers.inputs.items():
                array[:count] = inputs[name][start : start + count]
            self.run(buffers)
            for name, array in buffers.outputs.items():
                outputs[name][start : start + count] = array[:count]
        return outputs


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
