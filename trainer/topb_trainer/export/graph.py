"""Convert a scoring model to an ONNX file whose bytes depend only on the model."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import onnx
import torch

from topb_scorer.scoring.session import OUTPUTS
from topb_trainer.models.scoring import AnyScoringModel

INPUT = "images"

_EXAMPLES = 2
"""Images in the exporter's example. With one image, the exporter would treat the batch size as a constant."""


def onnx_graph(model: AnyScoringModel, height: int, width: int) -> bytes:
    """Return the bytes of an ONNX file.

    It maps `images`, uint8 (N, height, width, 3) for any N, to score (N), probabilities (N, C) and features
    (N, D), all float32.
    """
    on_cpu = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with _quiet():
        program = torch.onnx.export(
            on_cpu,
            (torch.zeros(_EXAMPLES, height, width, 3, dtype=torch.uint8),),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
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
