"""Small real bundles, written without torch."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import json_format
from onnx import TensorProto, helper, numpy_helper

from topb.image_input import ImageInput, ResizeRule
from topb.v1 import bundle_pb2

STRATEGIES = ("aalu", "entropy", "least_confidence", "margin", "random")


def convolutional_graph(
    *, height: int = 16, width: int = 16, classes: int = 5, features: int = 8, seed: int = 0
) -> bytes:
    """Return the ONNX graph of a small network: a convolution, ReLU, average pooling, and two heads."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.5, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "kernel", "bias"], ["conv"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "class_weights", "class_bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Gemm", ["features", "score_weights"], ["score_logits"]),
        helper.make_node("Sigmoid", ["score_logits"], ["score_column"]),
        helper.make_node("Squeeze", ["score_column", "last"], ["score"]),
    ]
    initializers = [
        numpy_helper.from_array(np.array(64.0, np.float32), "scale"),
        numpy_helper.from_array(np.array([1], np.int64), "last"),
        weights("kernel", features, 3, 3, 3),
        weights("bias", features),
        weights("class_weights", features, classes),
        weights("class_bias", classes),
        weights("score_weights", features, 1),
    ]
    return _model(nodes, initializers, height, width, classes, features)


def deep_graph(*, height: int = 32, width: int = 32, classes: int = 10, seed: int = 0) -> bytes:
    """Return a graph large enough for the kernels of large networks: four convolutions, 512 features."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["active0"], perm=[0, 3, 1, 2]),
    ]
    initializers = [
        numpy_helper.from_array(np.array(128.0, np.float32), "scale"),
        numpy_helper.from_array(np.array([1], np.int64), "last"),
    ]

    def weights(name: str, *shape: int) -> str:
        drawn = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        initializers.append(numpy_helper.from_array(drawn, name))
        return name

    channels = (3, 24, 48, 48, 64)
    for i, (before, after) in enumerate(pairwise(channels)):
        kernel = weights(f"kernel{i}", after, before, 3, 3)
        stride = [1, 1] if i == 2 else [2, 2]
        nodes += [
            helper.make_node("Conv", [f"active{i}", kernel], [f"conv{i}"], pads=[1, 1, 1, 1], strides=stride),
            helper.make_node("Relu", [f"conv{i}"], [f"active{i + 1}"]),
        ]
    nodes += [
        helper.make_node("Flatten", [f"active{len(channels) - 1}"], ["flat"]),
        helper.make_node(
            "Gemm", ["flat", weights("dense", 512, 64 * (height // 8) * (width // 8))], ["hidden"], transB=1
        ),
        helper.make_node("Relu", ["hidden"], ["features"]),
        helper.make_node("Gemm", ["features", weights("class_weights", classes, 512)], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Gemm", ["features", weights("score_weights", 1, 512)], ["score_logits"], transB=1),
        helper.make_node("Sigmoid", ["score_logits"], ["score_column"]),
        helper.make_node("Squeeze", ["score_column", "last"], ["score"]),
    ]
    return _model(nodes, initializers, height, width, classes, features=512)


def reciprocal_graph(*, height: int = 16, width: int = 16) -> bytes:
    """Return a graph whose score is one over the first pixel's red, so infinite where that is 0."""
    return _first_red_graph([helper.make_node("Reciprocal", ["red"], ["value"])], height=height, width=width)


def null_graph(*, height: int = 16, width: int = 16) -> bytes:
    """Return a graph that does next to nothing: the score is the first pixel's red."""
    return _first_red_graph([helper.make_node("Identity", ["red"], ["value"])], height=height, width=width)


def write_bundle(
    parent: Path,
    graph: bytes | None = None,
    *,
    round_: int = 0,
    created_seconds: int = 1_700_000_000,
    resize: ResizeRule = ResizeRule.STRETCH,
) -> Path:
    """Write the graph as a bundle below `parent` and return the bundle's directory."""
    graph = convolutional_graph() if graph is None else graph
    digest = hashlib.sha256(graph).hexdigest()
    path = parent / digest[:16]
    path.mkdir(parents=True)
    (path / "scorer.onnx").write_bytes(graph)
    session_input = onnx.load_from_string(graph).graph.input[0].type.tensor_type.shape.dim
    outputs = {
        output.name: [dim.dim_value for dim in output.type.tensor_type.shape.dim[1:]]
        for output in onnx.load_from_string(graph).graph.output
    }
    (feature_size,) = outputs["features"]
    labelled = {
        "id": ["labelled-0", "labelled-1"],
        "feature": np.zeros((2, feature_size), np.float32).tolist(),
    }
    schema = pa.schema({"id": pa.string(), "feature": pa.list_(pa.float32(), feature_size)})
    pq.write_table(pa.table(labelled, schema=schema), path / "labelled.parquet")
    manifest = bundle_pb2.Bundle(
        schema_version=1,
        model_id=digest[:16],
        method="aalu",
        round=round_,
        classes=[f"class {i}" for i in range(outputs["probabilities"][0])],
        strategies=STRATEGIES,
        labelled_count=2,
        test_accuracy=0.5,
        seed=0,
        input=ImageInput(session_input[1].dim_value, session_input[2].dim_value, resize).to_message(),
        outputs=[
            bundle_pb2.ModelOutput(name=name, meaning=name, shape=shape) for name, shape in outputs.items()
        ],
    )
    manifest.create_time.FromSeconds(created_seconds)
    for name in ("scorer.onnx", "labelled.parquet"):
        content = (path / name).read_bytes()
        manifest.files.add(name=name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    (path / "manifest.json").write_text(json_format.MessageToJson(manifest), encoding="utf-8")
    return path


def _first_red_graph(between: list[onnx.NodeProto], *, height: int, width: int) -> bytes:
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "axes"], ["pixel"]),
        helper.make_node("Cast", ["pixel"], ["red"], to=TensorProto.FLOAT),
        *between,
        helper.make_node("Reshape", ["value", "flat"], ["score"]),
        helper.make_node("Reshape", ["red", "column"], ["features"]),
        helper.make_node("Softmax", ["features"], ["probabilities"], axis=1),
    ]
    initializers = [
        numpy_helper.from_array(np.array([0, 0, 0], np.int64), "starts"),
        numpy_helper.from_array(np.array([1, 1, 1], np.int64), "ends"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"),
        numpy_helper.from_array(np.array([-1], np.int64), "flat"),
        numpy_helper.from_array(np.array([-1, 1], np.int64), "column"),
    ]
    return _model(nodes, initializers, height, width, classes=1, features=1)


def _model(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    height: int,
    width: int,
    classes: int,
    features: int,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "scorer",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", height, width, 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", features]),
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized
