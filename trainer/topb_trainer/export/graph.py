"""From a scoring model to the bytes of an ONNX file: the same for the same weights, wherever it is done."""

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
"""Images in the exporter's example: of one it would take the batch for a constant."""


def onnx_graph(model: AnyScoringModel, height: int, width: int) -> bytes:
    """Returns an ONNX file: `images` uint8 (N, height, width, 3) to score, probabilities, features; any N."""
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
    """Takes out what the exporter notes for debugging: stack traces with paths of this machine among it."""
    nodes = [*graph.graph.node, *(node for function in graph.functions for node in function.node)]
    values = [*graph.graph.input, *graph.graph.output, *graph.graph.value_info, *graph.graph.initializer]
    for noted in (graph, graph.graph, *graph.functions, *nodes, *values):
        noted.ClearField("doc_string")
        noted.ClearField("metadata_props")
    # Known from the nodes; the scorer's runtime infers them anew.
    graph.graph.ClearField("value_info")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's remarks, which are not about this model, off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
