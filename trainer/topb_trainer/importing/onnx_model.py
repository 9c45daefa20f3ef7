"""Import a model in ONNX: find its input and its features, and make the graphs of a bundle."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from topb_trainer.errors import ModelImportError
from topb_trainer.export.publishing import Graphs
from topb_trainer.importing.graphs import Classifier, RowShape, bundle_graphs
from topb_trainer.importing.image_value import find_image_input, size_and_layout
from topb_trainer.importing.input_rule import InputOptions, InputRule, input_rule
from topb_trainer.importing.onnx_file import cpu_session, one_line, to_bytes
from topb_trainer.importing.original import float32_rows, original_model
from topb_trainer.importing.values import choices, find_value, type_name

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)

Outputs = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ChosenValues:
    """The values of a graph that become features and probabilities, by name."""

    features: str | None
    logits: str | None = None
    probabilities: str | None = None

    @property
    def classifier(self) -> Classifier | None:
        """The value that says which class an image shows; None if there is none."""
        if self.logits is not None:
            return Classifier(self.logits, gives_logits=True)
        return None if self.probabilities is None else Classifier(self.probabilities, gives_logits=False)


@dataclass(frozen=True)
class ImportedModel:
    """A model as the graphs of a bundle, and what it takes to compare them with the model."""

    graphs: Graphs
    rule: InputRule
    """How images become the model's input."""
    original: Callable[[NDArray[np.uint8]], Outputs]
    """Computes the outputs of both graphs, float32 (N, …), by the model as it was given."""
    is_float16: bool
    """Whether the model computes its features in float16, so that they can be kept so without loss."""
    gives_logits: bool
    """Whether probabilities are computed from the model's logits."""
    mixing: Sequence[str]
    """The nodes that may compute something from several images of a batch, in words."""
    settings: dict[str, Any]
    """What the manifest tells about the import."""

    @property
    def class_count(self) -> int:
        """C; 0 if the model has no classifier."""
        (count,) = self.graphs.head_shapes.get("probabilities", (0,))
        return count


def import_onnx(source: ir.Model, chosen: ChosenValues, options: InputOptions) -> ImportedModel:
    """Make the graphs of a bundle from a model.

    Args:
        source: the model, as `read_onnx` returns it; its shapes are completed.
        chosen: its features and, if it has a classifier, its logits or its probabilities.
        options: what is known about its input.

    Raises:
        ModelImportError: a choice is missing, or the model cannot be imported as chosen.
    """
    if chosen.logits is not None and chosen.probabilities is not None:
        raise ModelImportError(
            "both --logits and --probabilities are given; give --logits alone",
            reason="IMPORT_PROBABILITIES",
        )
    digest = hashlib.sha256(to_bytes(source)).hexdigest()
    graph = source.graph
    names = [name for name in (chosen.features, chosen.logits, chosen.probabilities) if name is not None]
    images = find_image_input(graph, _values_named(source, chosen))
    size, layout = size_and_layout(images, options)
    channels_last = layout == "nhwc"
    batch = images.shape[0] if images.shape else "batch"
    images.shape = ir.Shape([batch, *size, 3] if channels_last else [batch, 3, *size])
    infer_shapes(source)
    if chosen.features is None:
        raise ModelImportError(
            f"the command does not say which value of the graph is the features; give --features NAME. "
            f"{choices(graph)}",
            reason="IMPORT_FEATURES",
        )
    rule = input_rule(options, size, layout, takes_pixels=images.dtype == ir.DataType.UINT8)
    original = original_model(source, images, names)
    black = np.zeros((1, *rule.before_crop, 3), np.uint8)
    rows = original.row_shapes(rule.apply(black))
    for name in original.names:
        _check_row(name, rows[name], graph)
    graphs = bundle_graphs(source, str(images.name), chosen.features, chosen.classifier, rows, rule)
    if original.batch is not None:
        _check_freed(graphs, original.batch, black)
    return ImportedModel(
        graphs=graphs,
        rule=rule,
        original=lambda pixels: bundle_outputs(float32_rows(original.values_of(rule.apply(pixels))), chosen),
        is_float16=rows[chosen.features].dtype == ir.DataType.FLOAT16,
        gives_logits=chosen.logits is not None,
        mixing=list(_mixing(source)),
        settings={"model_sha256": digest, **asdict(chosen), "input": _as_dict(rule)},
    )


def infer_shapes(model: ir.Model) -> None:
    """Complete the shapes of all values, as far as that is possible."""
    with _quiet():
        ShapeInferencePass()(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of a shape inference that fails: the shapes are a help, and stay unknown."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _values_named(source: ir.Model, chosen: ChosenValues) -> list[ir.Value]:
    """Return the chosen values; the outputs of the graph if no features are chosen."""
    infer_shapes(source)
    options = {"features": chosen.features, "logits": chosen.logits, "probabilities": chosen.probabilities}
    found = [find_value(source.graph, name, f"--{option}") for option, name in options.items() if name]
    return found if chosen.features else list(source.graph.outputs)


def _check_freed(graphs: Graphs, batch: int, image: NDArray[np.uint8]) -> None:
    """Run graphs that were exported for a fixed number of images on another one."""
    count = batch + 2
    try:
        encoder = cpu_session(graphs.encoder)
        names = [output.name for output in encoder.get_outputs()]
        outputs = dict(zip(names, encoder.run(names, {"images": image.repeat(count, axis=0)}), strict=True))
        if graphs.head is not None:
            head = cpu_session(graphs.head)
            head.run(None, {taken.name: outputs[taken.name] for taken in head.get_inputs()})
        rows = len(outputs["features"])
        fault = "" if rows == count else f"it gives {rows} rows for {count} images"
    except Exception as error:
        # ONNX Runtime's errors have no public base class in common.
        fault = one_line(error)
    if fault:
        raise ModelImportError(
            f"the model was exported for {batch} image{'s' if batch > 1 else ''} at a time, and its graph "
            f"could not be changed to take {count}: {fault}; export it with a dynamic batch dimension "
            "(dynamic_shapes, or dynamic_axes, of torch.onnx.export)",
            reason="IMPORT_BATCH",
        )


def _check_row(name: str, row: RowShape, graph: ir.Graph) -> None:
    shape = f"{type_name(row.dtype)} (N, {', '.join(map(str, row.shape))})"
    if row.dtype not in _FLOATS or row.size != row.shape[0] or row.size < 2:
        raise ModelImportError(
            f"{name} is {shape}; expected at least two floating-point numbers for each image, of the shape "
            f"(N, D); choose a value after the pooling. {choices(graph)}",
            reason="IMPORT_FEATURES",
            name=name,
        )


def bundle_outputs(values: Outputs, chosen: ChosenValues) -> Outputs:
    """Return what both graphs of a bundle give, float32 (N, …), for the chosen values of the model."""
    outputs = {"features": values[str(chosen.features)]}
    if chosen.logits is not None:
        logits = values[chosen.logits].astype(np.float64)  # (N, C)
        with np.errstate(invalid="ignore"):
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return outputs | {"logits": values[chosen.logits], "probabilities": probabilities}
    if chosen.probabilities is not None:
        given = values[chosen.probabilities]
        return outputs | {"class_probabilities": given, "probabilities": given}
    return outputs


def _mixing(source: ir.Model) -> Iterator[str]:
    for node in source.graph.all_nodes():
        training = node.attributes.get("training_mode")
        is_training = len(node.outputs) > 1 or (training is not None and training.as_int() == 1)
        if node.op_type == "BatchNormalization" and is_training:
            yield f"{node.name or node.outputs[0].name} is a batch normalisation in training mode"
        elif node.op_type.startswith("DynamicQuantize"):
            yield f"{node.name or node.outputs[0].name} quantises by the largest value of the whole batch"


def _as_dict(rule: InputRule) -> dict[str, Any]:
    """Return a rule as the manifest records it, beside the size and the resize rule that it has anyway."""
    pixels = None if rule.pixels is None else asdict(rule.pixels)
    return {"size": list(rule.size), "layout": rule.layout, "bgr": rule.bgr, "pixels": pixels}
