"""Convert encoder and head of a scoring model to ONNX files whose bytes depend only on the model."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import onnx
import torch
from torch import Tensor, nn

from topb_trainer.errors import ConfigurationError
from topb_trainer.export.publishing import Graphs
from topb_trainer.models.scoring import FeatureType, Outputs, ScoringModel, rounded

_EXAMPLES = 2
"""Rows in the exporter's example. With one row, the exporter would treat the batch size as a constant."""


def onnx_graphs(model: ScoringModel, height: int, width: int) -> Graphs:
    """Return the graphs of a model. The encoder's bytes do not depend on the head."""
    on_cpu = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images = torch.zeros(_EXAMPLES, height, width, 3, dtype=torch.uint8)
    with torch.no_grad():
        encoded = on_cpu.encode(images)
        scored = on_cpu.head(encoded)
    return Graphs(
        encoder=_graph(_Encoder(on_cpu), {"images": images}, list(encoded)),
        head=_graph(_Head(on_cpu, list(encoded)), encoded, list(scored)),
        encoder_shapes={name: tuple(values.shape[1:]) for name, values in encoded.items()},
        head_shapes={name: tuple(values.shape[1:]) for name, values in scored.items()},
    )


def encoder_graph(encoder: nn.Module, feature_type: FeatureType, height: int, width: int) -> bytes:
    """Return the graph of an encoder that is not trained.

    Args:
        encoder: maps uint8 (N, height, width, 3) to features (N, D), on the CPU, in evaluation mode.
        feature_type: the precision to which the graph rounds the features.
        height, width: the size of the images.

    Raises:
        ConfigurationError: with reason ENCODER_NOT_EXPORTABLE.
    """
    images = torch.zeros(_EXAMPLES, height, width, 3, dtype=torch.uint8)
    return module_graph(_FrozenEncoder(encoder, feature_type), {"images": images}, ["features"])


def module_graph(module: nn.Module, inputs: Outputs, outputs: Sequence[str]) -> bytes:
    """Return the graph of somebody's module, with names for what it takes and returns.

    Args:
        module: takes and returns tensors by position, on the CPU, in evaluation mode.
        inputs: examples of two rows, by name.
        outputs: the names of the tensors that it returns.

    Raises:
        ConfigurationError: with reason ENCODER_NOT_EXPORTABLE.
    """
    try:
        return _graph(module, inputs, outputs)
    except Exception as error:
        # torch raises errors of many types for modules that it cannot trace or translate.
        raise ConfigurationError(
            f"torch cannot export the encoder to ONNX: {str(error).strip().partition(chr(10))[0]}; the "
            "module must compute its features with tensors alone, for any number of images",
            reason="ENCODER_NOT_EXPORTABLE",
        ) from error


def head_graphs(model: ScoringModel, encoder: bytes, feature_size: int) -> Graphs:
    """Return the graphs of a model whose encoder has one already, which stays the same byte for byte.

    Args:
        model: the model, whose `head` takes features, float32 (N, D).
        encoder: the encoder's graph; empty if there is no encoder.
        feature_size: D.
    """
    on_cpu = copy.deepcopy(model).to("cpu")
    encoded = {"features": torch.zeros(_EXAMPLES, feature_size)}  # (2, D)
    with torch.no_grad():
        scored = on_cpu.head(encoded)
    return Graphs(
        encoder=encoder,
        head=_graph(_Head(on_cpu, list(encoded)), encoded, list(scored)),
        encoder_shapes={"features": (feature_size,)},
        head_shapes={name: tuple(values.shape[1:]) for name, values in scored.items()},
    )


class _Encoder(nn.Module):
    def __init__(self, model: ScoringModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (images,) = inputs
        return tuple(self.model.encode(images).values())


class _FrozenEncoder(nn.Module):
    def __init__(self, encoder: nn.Module, feature_type: FeatureType) -> None:
        super().__init__()
        self.encoder = encoder
        self.feature_type = feature_type

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (images,) = inputs
        return (rounded(self.encoder(images), self.feature_type),)


class _Head(nn.Module):
    def __init__(self, model: ScoringModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.head(dict(zip(self.names, inputs, strict=True))).values())


def _graph(part: nn.Module, inputs: Outputs, outputs: Sequence[str]) -> bytes:
    """Export a module that takes and returns tensors by position, with names for them."""
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            part,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={"inputs": tuple({0: batch} for _ in inputs)},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export(dynamo=True) returned no program")
    graph = program.model_proto
    _strip(graph)
    return graph.SerializeToString(deterministic=True)


def _strip(graph: onnx.ModelProto) -> None:
    """Remove the exporter's debugging notes, among them stack traces with paths of this machine."""
    nodes = [*graph.graph.node, *(node for function in graph.functions for node in function.node)]
    values = [*graph.graph.input, *graph.graph.output, *graph.graph.value_info, *graph.graph.initializer]
    for noted in (graph, graph.graph, *graph.functions, *nodes, *values):
        noted.ClearField("doc_string")
        noted.ClearField("metadata_props")
    # The shapes of inner values follow from the nodes; ONNX Runtime infers them.
    graph.graph.ClearField("value_info")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks, which do not concern this model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
