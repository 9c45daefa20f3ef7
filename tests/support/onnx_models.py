"""Small models in ONNX, as somebody else might have exported them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import numpy_helper

SIZE, FEATURES, CLASSES = 16, 8, 5
IMAGENET = ("--mean", 0.485, 0.456, 0.406, "--std", 0.229, 0.224, 0.225)


def weights(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the weights of `classifier`."""
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (FEATURES, 3, 3, 3), "dense": (FEATURES, CLASSES), "bias": (CLASSES,)}
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


BODY = """
    conv = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (pixels, kernel)
    active = Relu (conv)
    pooled = GlobalAveragePool (active)
    embedding = Flatten (pooled)
    logits = Gemm (embedding, dense, bias)
"""
NHWC = BODY.replace("(pixels, kernel)", "(nchw, kernel)").replace(
    "    conv", "    nchw = Transpose <perm = [0, 3, 1, 2]> (pixels)\n    conv", 1
)


def classifier(
    body: str = BODY,
    *,
    inputs: str = f"float[N, 3, {SIZE}, {SIZE}] pixels",
    outputs: str = f"float[N, {CLASSES}] logits",
    more: Mapping[str, NDArray[Any]] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """Return a model: a convolution, pooling and a linear layer, or another body with the same weights."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> given ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    constants = weights() | dict(more or {})
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(values, name) for name, values in constants.items() if name in used
    )
    return model


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Write the model to a file."""
    path.write_bytes(model.SerializeToString())
    return path
