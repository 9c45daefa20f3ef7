"""Small real bundles, written without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
from topb_scorer.bundle import encoder_id_of, model_id_of

STRATEGIES = ("aalu", "entropy", "least_confidence", "margin", "random")


class Graphs(NamedTuple):
    """The ONNX graphs of a model."""

    encoder: bytes
    head: bytes


def convolutional_graph(
    *, height: int = 16, width: int = 16, classes: int = 5, features: int = 8, seed: int = 0
) -> Graphs:
    """Return the graphs of a small network: a convolution, ReLU, average pooling, and two heads."""
    rng = np.random.default_rng(seed)
    shapes = {
        "kernel": (features, 3, 3, 3),
        "bias": (features,),
        "class_weights": (features, classes),
        "class_bias": (classes,),
        "score_weights": (features, 1),
    }
    weights = {name: rng.normal(0, 0.5, shape) for name, shape in shapes.items()}
    encoder = f"""
        {_SCALED_NCHW.format(scale=64.0)}
        conv = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (nchw, kernel, bias)
        active = Relu (conv)
        pooled = GlobalAveragePool (active)
        features = Flatten (pooled)
    """
    head = f"""
        logits = Gemm (features, class_weights, class_bias)
        probabilities = Softmax <axis = 1> (logits)
        score_logits = Gemm (features, score_weights)
        {_SCORE}
    """
    return _graphs(encoder, head, weights, height, width, classes, features)


def deep_graph() -> Graphs:
    """Return graphs large enough for the kernels of large networks: four convolutions, 512 features."""
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
    encoder = f"""
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
    """
    head = f"""
        logits = Gemm <transB = 1> (features, class_weights)
        probabilities = Softmax <axis = 1> (logits)
        score_logits = Gemm <transB = 1> (features, score_weights)
        {_SCORE}
    """
    return _graphs(encoder, head, weights, 32, 32, classes=10, features=512)


def reciprocal_graph() -> Graphs:
    """Return graphs whose score is 1 divided by the first pixel's red, which is infinite if the red is 0."""
    return _first_red_graphs(score="Reciprocal")


def infinite_feature_graph() -> Graphs:
    """Return graphs whose score is the first pixel's red, and whose feature is 1 divided by it."""
    return _first_red_graphs(features="Reciprocal", score="Reciprocal")


def linear_head(features: int, classes: int, *, seed: int = 0) -> bytes:
    """Return a head of two linear layers, for a score and for probabilities."""
    rng = np.random.default_rng(seed)
    weights = {
        "class_weights": rng.normal(0, 0.1, (features, classes)),
        "class_bias": rng.normal(0, 0.1, classes),
        "score_weights": rng.normal(0, 0.1, (features, 1)),
    }
    nodes = f"""
        logits = Gemm (features, class_weights, class_bias)
        probabilities = Softmax <axis = 1> (logits)
        score_logits = Gemm (features, score_weights)
        {_SCORE}
    """
    vectors = f"float[N, {features}] features"
    return _model(vectors, f"float[N] score, float[N, {classes}] probabilities", nodes, weights)


def null_graph(*, height: int = 16, width: int = 16) -> Graphs:
    """Return graphs with almost no computation: the score and the feature are the first pixel's red."""
    return _first_red_graphs(height=height, width=width)


def write_bundle(
    parent: Path,
    graphs: Graphs | None = None,
    *,
    round_: int = 0,
    created_seconds: int = 1_700_000_000,
    resize: ResizeRule = ResizeRule.STRETCH,
    labelled: Mapping[str, bytes | None] | None = None,
    encoder: bool = True,
    outputs: Sequence[str] = ("score", "probabilities", "features"),
    float16: bool = False,
    encoder_frozen: bool = False,
) -> Path:
    """Write the graphs as a bundle below `parent` and return the bundle's directory.

    Args:
        parent: a directory of bundles.
        graphs: the encoder and the head; by default, those of `convolutional_graph`.
        round_, created_seconds, resize: fields of the manifest.
        labelled: the content digest of each labelled image by its id; by default there are two images that
            are in no pool, without digests.
        encoder: whether the bundle has an encoder.
        outputs: the outputs that the model has. The others are removed from the head.
        float16: whether the manifest says that features are rounded to float16.
        encoder_frozen: field of the manifest.
    """
    graphs = graphs or convolutional_graph()
    images, features = _shapes(graphs.encoder)["images"], _shapes(graphs.encoder)["features"]
    head = _without(graphs.head, {"score", "probabilities"} - {*outputs})
    shapes = _shapes(head) | {"features": features}
    path = parent / "unpublished"
    path.mkdir(parents=True)
    if encoder:
        (path / "encoder.onnx").write_bytes(graphs.encoder)
    if {*outputs} - {"features"}:
        (path / "head.onnx").write_bytes(head)
    ids = ["labelled-0", "labelled-1"] if labelled is None else list(labelled)
    columns = {"id": pa.array(ids, pa.string())}
    if labelled is not None:
        columns["digest"] = pa.array(labelled.values(), pa.binary(16))
    columns["feature"] = pa.array([[0.0] * features[0]] * len(ids), pa.list_(pa.float32(), features[0]))
    pq.write_table(pa.table(columns), path / "labelled.parquet")
    manifest = bundle_pb2.Bundle(
        schema_version=2,
        method="aalu",
        round=round_,
        classes=[f"class {i}" for i in range(shapes.get("probabilities", [0])[0])],
        strategies=STRATEGIES if "score" in outputs else STRATEGIES[1:],
        labelled_count=len(ids),
        test_accuracy=0.5,
        seed=0,
        outputs=[_described(name, shapes[name]) for name in outputs],
        feature_type=bundle_pb2.FEATURE_TYPE_FLOAT16 if float16 else bundle_pb2.FEATURE_TYPE_FLOAT32,
        encoder_frozen=encoder_frozen,
        encoder_outputs=[_described("features", features)],
        labelled_sha256="0" * 64,
    )
    if encoder:
        manifest.input.CopyFrom(ImageInput(images[0], images[1], resize).to_message())
    manifest.create_time.FromSeconds(created_seconds)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        manifest.files.add(
            name=file.name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
        )
    manifest.encoder_id = encoder_id_of(manifest)
    manifest.model_id = model_id_of(manifest)
    (path / "manifest.json").write_text(json_format.MessageToJson(manifest), encoding="utf-8")
    return path.rename(parent / manifest.model_id)


def _described(name: str, shape: Sequence[int]) -> bundle_pb2.ModelOutput:
    return bundle_pb2.ModelOutput(name=name, meaning=name, shape=shape)


def _shapes(graph: bytes) -> dict[str, list[int]]:
    """Return the shapes of inputs and outputs for one row, by name."""
    description = onnx.load_from_string(graph).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
        for value in (*description.input, *description.output)
    }


def _without(graph: bytes, outputs: set[str]) -> bytes:
    if not outputs:
        return graph
    model = onnx.load_from_string(graph)
    kept = [output for output in model.graph.output if output.name not in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model.SerializeToString()


def _first_red_graphs(
    *, features: str = "Identity", score: str = "Identity", height: int = 16, width: int = 16
) -> Graphs:
    encoder = f"""
        starts = Constant <value_ints = [0, 0, 0]> ()
        ends = Constant <value_ints = [1, 1, 1]> ()
        axes = Constant <value_ints = [1, 2, 3]> ()
        pixel = Slice (images, starts, ends, axes)
        red = Cast <to = 1> (pixel)
        column = Flatten (red)
        features = {features} (column)
    """
    head = f"""
        column = {score} (features)
        flat = Constant <value_ints = [-1]> ()
        score = Reshape (column, flat)
        probabilities = Softmax <axis = 1> (column)
    """
    return _graphs(encoder, head, {}, height, width, classes=1, features=1)


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


def _graphs(
    encoder: str,
    head: str,
    weights: dict[str, NDArray[np.float64]],
    height: int,
    width: int,
    classes: int,
    features: int,
) -> Graphs:
    vectors = f"float[N, {features}] features"
    return Graphs(
        _model(f"uint8[N, {height}, {width}, 3] images", vectors, encoder, weights),
        _model(vectors, f"float[N] score, float[N, {classes}] probabilities", head, weights),
    )


def _model(inputs: str, outputs: str, nodes: str, weights: dict[str, NDArray[np.float64]]) -> bytes:
    graph = onnx.parser.parse_graph(f"scorer ({inputs}) => ({outputs}) {{ {nodes} }}")
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in weights.items()
        if name in used
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()
