"""Small real bundles, written without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import json_format
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from topb.image_input import ImageInput, ResizeRule
from topb.v1 import bundle_pb2

STRATEGIES = ("aalu", "entropy", "least_confidence", "margin", "random")


def convolutional_graph(
    *, height: int = 16, width: int = 16, classes: int = 5, features: int = 8, seed: int = 0
) -> bytes:
    """Return the ONNX graph of a small network: a convolution, ReLU, average pooling, and two heads."""
    rng = np.random.default_rng(seed)
    shapes = {
        "kernel": (features, 3, 3, 3),
        "bias": (features,),
        "class_weights": (features, classes),
        "class_bias": (classes,),
        "score_weights": (features, 1),
    }
    weights = {name: rng.normal(0, 0.5, shape) for name, shape in shapes.items()}
    nodes = f"""
        {_SCALED_NCHW.format(scale=64.0)}
        conv = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (nchw, kernel, bias)
        active = Relu (conv)
        pooled = GlobalAveragePool (active)
        features = Flatten (pooled)
        logits = Gemm (features, class_weights, class_bias)
        probabilities = Softmax <axis = 1> (logits)
        score_logits = Gemm (features, score_weights)
        {_SCORE}
    """
    return _model(nodes, weights, height, width, classes, features)


def deep_graph() -> bytes:
    """Return a graph large enough for the kernels of large networks: four convolutions, 512 features."""
    rng = np.random.default_rng(0)
    shapes = {
        "kernel0": (24, 3, 3, 3),
        "kernel1": (48, 24, 3, 3),
        "kernel2": (48, 48, 3, 3),
        "kernel3": (64, 48, 3, 3),
        "dense": (512, 1024),
        "class_weights": (10, 512),
        "score_weights": (1, 512),
    }
    weights = {name: rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape) for name, shape in shapes.items()}
    nodes = f"""
        {_SCALED_NCHW.format(scale=128.0)}
        conv0 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (nchw, kernel0)
        active0 = Relu (conv0)
        conv1 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (active0, kernel1)
        active1 = Relu (conv1)
        conv2 = Conv <pads = [1, 1, 1, 1], strides = [1, 1]> (active1, kernel2)
        active2 = Relu (conv2)
        conv3 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (active2, kernel3)
        active3 = Relu (conv3)
        flat = Flatten (active3)
        hidden = Gemm <transB = 1> (flat, dense)
        features = Relu (hidden)
        logits = Gemm <transB = 1> (features, class_weights)
        probabilities = Softmax <axis = 1> (logits)
        score_logits = Gemm <transB = 1> (features, score_weights)
        {_SCORE}
    """
    return _model(nodes, weights, 32, 32, classes=10, features=512)


def reciprocal_graph() -> bytes:
    """Return a graph whose score is 1 divided by the first pixel's red, which is infinite if the red is 0."""
    return _first_red_graph("Reciprocal")


def infinite_feature_graph() -> bytes:
    """Return a graph whose score is the first pixel's red, and whose feature is 1 divided by it."""
    return _first_red_graph("Identity", features="Reciprocal")


def null_graph(*, height: int = 16, width: int = 16) -> bytes:
    """Return a graph with almost no computation: the score is the first pixel's red."""
    return _first_red_graph("Identity", height=height, width=width)


def write_bundle(
    parent: Path,
    graph: bytes | None = None,
    *,
    round_: int = 0,
    created_seconds: int = 1_700_000_000,
    resize: ResizeRule = ResizeRule.STRETCH,
    labelled: Mapping[str, bytes | None] | None = None,
) -> Path:
    """Write the graph as a bundle below `parent` and return the bundle's directory.

    `labelled` has the content digest of each labelled image by its id; by default there are two images that
    are in no pool, without digests.
    """
    graph = convolutional_graph() if graph is None else graph
    digest = hashlib.sha256(graph).hexdigest()
    path = parent / digest[:16]
    path.mkdir(parents=True)
    (path / "scorer.onnx").write_bytes(graph)
    description = onnx.load_from_string(graph).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
        for value in (*description.input, *description.output)
    }
    height, width, _ = shapes.pop("images")
    (feature_size,) = shapes["features"]
    ids = ["labelled-0", "labelled-1"] if labelled is None else list(labelled)
    columns = {"id": pa.array(ids, pa.string())}
    if labelled is not None:
        columns["digest"] = pa.array(labelled.values(), pa.binary(16))
    columns["feature"] = pa.array([[0.0] * feature_size] * len(ids), pa.list_(pa.float32(), feature_size))
    pq.write_table(pa.table(columns), path / "labelled.parquet")
    manifest = bundle_pb2.Bundle(
        schema_version=1,
        model_id=digest[:16],
        method="aalu",
        round=round_,
        classes=[f"class {i}" for i in range(shapes["probabilities"][0])],
        strategies=STRATEGIES,
        labelled_count=len(ids),
        test_accuracy=0.5,
        seed=0,
        input=ImageInput(height, width, resize).to_message(),
        outputs=[
            bundle_pb2.ModelOutput(name=name, meaning=name, shape=shape) for name, shape in shapes.items()
        ],
    )
    manifest.create_time.FromSeconds(created_seconds)
    for name in ("scorer.onnx", "labelled.parquet"):
        content = (path / name).read_bytes()
        manifest.files.add(name=name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    (path / "manifest.json").write_text(json_format.MessageToJson(manifest), encoding="utf-8")
    return path


def _first_red_graph(score: str, *, features: str = "Identity", height: int = 16, width: int = 16) -> bytes:
    nodes = f"""
        starts = Constant <value_ints = [0, 0, 0]> ()
        ends = Constant <value_ints = [1, 1, 1]> ()
        axes = Constant <value_ints = [1, 2, 3]> ()
        pixel = Slice (images, starts, ends, axes)
        red = Cast <to = 1> (pixel)
        value = {score} (red)
        flat = Constant <value_ints = [-1]> ()
        score = Reshape (value, flat)
        column = Flatten (red)
        features = {features} (column)
        probabilities = Softmax <axis = 1> (column)
    """
    return _model(nodes, {}, height, width, classes=1, features=1)


_SCALED_NCHW = """
        float = Cast <to = 1> (images)
        scale = Constant <value_float = {scale}> ()
        unit = Div (float, scale)
        nchw = Transpose <perm = [0, 3, 1, 2]> (unit)
"""
_SCORE = """
        score_column = Sigmoid (score_logits)
        last = Constant <value_ints = [1]> ()
        score = Squeeze (score_column, last)
"""


def _model(
    nodes: str, weights: dict[str, NDArray[np.float64]], height: int, width: int, classes: int, features: int
) -> bytes:
    outputs = f"float[N] score, float[N, {classes}] probabilities, float[N, {features}] features"
    graph = onnx.parser.parse_graph(
        f"scorer (uint8[N, {height}, {width}, 3] images) => ({outputs}) {{ {nodes} }}"
    )
    graph.initializer.extend(
        numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()
