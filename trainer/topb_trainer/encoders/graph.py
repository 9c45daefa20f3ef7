"""Encoders that are ONNX graphs: a file, or the encoder of a bundle. They are used byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from topb.image_input import ImageInput, ResizeRule
from topb.v1 import bundle_pb2
from topb_scorer.bundle import open_bundle
from topb_trainer.config import TaskConfig
from topb_trainer.encoders.source import GraphEncoder
from topb_trainer.errors import ConfigurationError

_ENCODER_GATES = ("not_finite", "not_float16", "features_difference", "batch_dependence")
"""The gates that concern the encoder of any bundle."""
_IMAGES, _FEATURES = "images", "features"
_EXPECTED = (
    "expected the graph of a bundle's encoder: `images`, uint8 (N, height, width, 3), to `features`, float32 "
    "(N, D). `topb import` makes a bundle of any other graph; give its path as task.encoder"
)
_TYPES: Any = onnx.TensorProto.DataType


def bundle_encoder(path: Path) -> GraphEncoder:
    """Return the encoder of the bundle in the directory `path`.

    Raises:
        ConfigurationError: with reason ENCODER_GRAPH if the bundle has no encoder.
        ScorerError: the bundle is missing, incomplete or altered.
    """
    bundle = open_bundle(path)
    if bundle.encoder is None:
        raise ConfigurationError(
            f"the bundle {path} has no encoder, because its pools are vectors; give a bundle that has one",
            reason="ENCODER_GRAPH",
        )
    float16 = bundle.manifest.feature_type == bundle_pb2.FEATURE_TYPE_FLOAT16
    passed = tuple(gate for gate in bundle.manifest.gates if gate.name in _ENCODER_GATES)
    return replace(_encoder(bundle.encoder, bundle.input.resize, float16=float16), passed=passed)


def onnx_encoder(path: Path, resize: ResizeRule | None) -> GraphEncoder:
    """Return the encoder in an ONNX file.

    Args:
        path: the file.
        resize: how images are resized to the size that the graph takes, which the graph does not tell; None
            to stretch them.

    Raises:
        ConfigurationError: with reason ENCODER_GRAPH if the file is not such a graph.
    """
    return _encoder(path, resize or ResizeRule.STRETCH, float16=False)


def require_frozen(task: TaskConfig) -> None:
    """Raise ConfigurationError, with reason ENCODER_NOT_TRAINABLE, if the encoder is to be trained."""
    if not task.trains_head or task.weights is not None:
        raise ConfigurationError(
            f"task.encoder is {task.encoder}, an ONNX graph, which cannot be trained and has its own "
            "weights; use --task.train head, and no --task.weights",
            reason="ENCODER_NOT_TRAINABLE",
        )


def _encoder(path: Path, resize: ResizeRule, *, float16: bool) -> GraphEncoder:
    try:
        content = path.read_bytes()
        graph = onnx.load_from_string(content).graph
    except Exception as error:
        # protobuf and the file system raise errors of several types.
        raise ConfigurationError(
            f"{path} cannot be read as an ONNX file: {error}", reason="ENCODER_GRAPH"
        ) from error
    constants = {constant.name for constant in graph.initializer}
    inputs = {value.name: _declared(value) for value in graph.input if value.name not in constants}
    outputs = {value.name: _declared(value) for value in graph.output}
    found = f"{path} takes {_told(inputs)} and gives {_told(outputs)}"
    images, features = inputs.get(_IMAGES), outputs.get(_FEATURES)
    if len(inputs) != 1 or images is None or features is None:
        raise ConfigurationError(f"{found}; {_EXPECTED}", reason="ENCODER_GRAPH")
    (dtype, batch, *size), (feature_dtype, feature_batch, *width) = images, features
    if (
        (dtype, feature_dtype) != ("uint8", "float")
        or isinstance(batch, int)
        or isinstance(feature_batch, int)
        or len(size) != 3
        or size[2] != 3
        or len(width) != 1
        or not all(isinstance(side, int) and side > 0 for side in (*size, *width))
    ):
        raise ConfigurationError(f"{found}; {_EXPECTED}", reason="ENCODER_GRAPH")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise ConfigurationError(
            f"{path} keeps weights in other files; `topb import` makes a bundle of it, whose path can be "
            "given as task.encoder",
            reason="ENCODER_GRAPH",
        )
    return GraphEncoder(content, ImageInput(size[0], size[1], resize), width[0], float16)


def _declared(value: onnx.ValueInfoProto) -> tuple[Any, ...]:
    """Return the type and the sizes of an input or output. A size that is not fixed is a name or "?"."""
    tensor = value.type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    return (_TYPES.Name(tensor.elem_type).lower(), *(sizes or ["?"]))


def _told(values: dict[str, tuple[Any, ...]]) -> str:
    shown = [f"{name} {dtype} ({', '.join(map(str, sizes))})" for name, (dtype, *sizes) in values.items()]
    return ", ".join(shown) or "nothing"
