"""Cut an imported graph at its features, and make the encoder and the head of a bundle of the two parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from topb_trainer.export.publishing import Graphs
from topb_trainer.importing.batch import BATCH, fixed_batch, free_batch
from topb_trainer.importing.input_rule import InputRule
from topb_trainer.importing.onnx_file import part, to_bytes
from topb_trainer.importing.values import ancestors

_INNER = "model/"
"""The prefix of all names of the imported graph, so that they differ from those around it."""
_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Classifier:
    """The value of a graph that says which class an image shows."""

    name: str
    gives_logits: bool
    """If false, the value is probabilities."""


@dataclass(frozen=True)
class RowShape:
    """What a value holds for one image."""

    dtype: ir.DataType
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its number of elements."""
        return int(np.prod(self.shape))


def bundle_graphs(
    source: ir.Model,
    image_input: str,
    features: str,
    classifier: Classifier | None,
    rows: Mapping[str, RowShape],
    rule: InputRule,
) -> Graphs:
    """Return the graphs of a bundle.

    If the classifier is a function of the features alone, that function is the head. Otherwise the encoder
    also gives what the classifier gives, as `logits` or `class_probabilities`, and the head takes that.

    Args:
        source: the imported model, which is not changed.
        image_input, features: the names of its input and of its features.
        classifier: its logits or probabilities; None for a bundle without a head.
        rows: what the values that are named above hold for one image.
        rule: how images become its input.
    """
    values = {value.name: value for node in source.graph for value in node.outputs}
    images = next(value for value in source.graph.inputs if value.name == image_input)
    encoder_outputs = {"features": features}
    head = None
    if classifier is not None:
        cut = values[features]
        if classifier.name == features:
            head = _classifier_head(source, "features", rows[features].size, classifier)
        elif images in ancestors([values[classifier.name]], stop=[cut]):
            head_input = "logits" if classifier.gives_logits else "class_probabilities"
            encoder_outputs[head_input] = classifier.name
            head = _classifier_head(source, head_input, rows[classifier.name].size, classifier)
        else:
            head = _cut_head(source, features, rows[features], classifier, fixed_batch(images))
    encoder = _encoder(source, image_input, encoder_outputs, rows, rule)
    return Graphs(
        to_bytes(encoder),
        None if head is None else to_bytes(head),
        encoder_shapes={name: (rows[inner].size,) for name, inner in encoder_outputs.items()},
        head_shapes={} if classifier is None else {"probabilities": (rows[classifier.name].size,)},
    )


def _encoder(
    source: ir.Model,
    image_input: str,
    outputs: Mapping[str, str],
    rows: Mapping[str, RowShape],
    rule: InputRule,
) -> ir.Model:
    model = part(source, [image_input], list(dict.fromkeys(outputs.values())))
    graph = model.graph
    (taken,) = graph.inputs
    free_batch(model, taken)
    _rename(model)
    height, width = rule.before_crop
    images = _value("images", ir.DataType.UINT8, (height, width, 3))
    steps = _Steps(graph)
    value = steps.centre(images, rule)
    if rule.pixels is not None:
        value = steps.add("Cast", [value], to=_FLOAT)
        for operator, numbers in (
            ("Mul", (rule.pixels.scale,)),
            ("Sub", rule.pixels.mean),
            ("Div", rule.pixels.std),
        ):
            value = steps.add(operator, [value, steps.constant(np.array(numbers, np.float32))])
        if taken.dtype not in (_FLOAT, None):
            value = steps.add("Cast", [value], to=taken.dtype)
    if rule.layout == "nchw":
        value = steps.add("Transpose", [value], perm=[0, 3, 1, 2])
    elif value is images:
        value = steps.add("Identity", [value])
    steps.put_first()
    taken.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.inputs[0] = images
    inner = dict(zip(dict.fromkeys(outputs.values()), list(graph.outputs), strict=True))
    graph.outputs.clear()
    for name, inner_name in outputs.items():
        graph.outputs.append(_row_of_float32(steps, inner[inner_name], name, rows[inner_name]))
    steps.put_last()
    return _finished(model)


def _cut_head(
    source: ir.Model, features: str, row: RowShape, classifier: Classifier, batch: int | None
) -> ir.Model:
    model = part(source, [features], [classifier.name])
    graph = model.graph
    (taken,) = graph.inputs
    taken.type, taken.shape = ir.TensorType(row.dtype), ir.Shape([batch or BATCH, *row.shape])
    free_batch(model, taken)
    _rename(model)
    given = _value("features", _FLOAT, (row.size,))
    steps = _Steps(graph)
    value = given
    if row.dtype != _FLOAT:
        value = steps.add("Cast", [value], to=row.dtype)
    if len(row.shape) > 1:
        value = steps.add("Reshape", [value, steps.constant(np.array([-1, *row.shape], np.int64))])
    steps.put_first()
    taken.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.inputs[0] = given
    _add_probabilities(graph, graph.outputs[0], classifier)
    return _finished(model)


def _classifier_head(source: ir.Model, name: str, size: int, classifier: Classifier) -> ir.Model:
    given = _value(name, _FLOAT, (size,))
    graph = ir.Graph([given], [], nodes=[], opset_imports=dict(source.opset_imports), name="topb")
    graph.outputs.append(given)
    _add_probabilities(graph, given, classifier)
    return _finished(ir.Model(graph, ir_version=source.ir_version))


def _add_probabilities(graph: ir.Graph, value: ir.Value, classifier: Classifier) -> None:
    """Replace the only output by `probabilities`, float32 (N, C)."""
    steps = _Steps(graph)
    value = steps.add("Flatten", [steps.add("Cast", [value], to=_FLOAT)], axis=1)
    if classifier.gives_logits:
        value = steps.add("Softmax", [value], axis=1)
    graph.outputs[0] = _named(value, "probabilities")
    steps.put_last()


def _row_of_float32(steps: _Steps, value: ir.Value, name: str, row: RowShape) -> ir.Value:
    """Return the value as float32 (N, size), with a name and a shape."""
    flat = steps.add("Flatten", [steps.add("Cast", [value], to=_FLOAT)], axis=1)
    flat.shape = ir.Shape([BATCH, row.size])
    return _named(flat, name)


class _Steps:
    """Makes nodes, and puts them before or after those of a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._nodes: list[ir.Node] = []
        self._constants = 0

    def add(self, operator: str, inputs: Sequence[ir.Value], **attributes: object) -> ir.Value:
        """Add a node, and return its output."""
        node = ir.node(operator, inputs, attributes)  # type: ignore[arg-type]
        self._nodes.append(node)
        return node.outputs[0]

    def constant(self, numbers: NDArray[Any]) -> ir.Value:
        """Add a constant."""
        name = f"rule/{self._constants}"
        self._constants += 1
        tensor = ir.tensor(numbers, name=name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype))
        self._graph.register_initializer(value)
        return value

    def centre(self, images: ir.Value, rule: InputRule) -> ir.Value:
        """Crop the centre of images (N, H, W, 3), and reverse their channels, if the rule asks for it."""
        value = images
        for axis, (cut, whole) in enumerate(zip(rule.crop, rule.before_crop, strict=True), start=1):
            if cut.stop - cut.start != whole:
                # Gather, because Slice has other arguments in older opsets.
                taken = self.constant(np.arange(cut.start, cut.stop, dtype=np.int64))
                value = self.add("Gather", [value, taken], axis=axis)
        if rule.bgr:
            value = self.add("Gather", [value, self.constant(np.array([2, 1, 0]))], axis=3)
        return value

    def put_first(self) -> None:
        """Put the nodes before those of the graph."""
        first = next(iter(self._graph), None)
        if first is None:
            self._graph.extend(self._nodes)
        else:
            self._graph.insert_before(first, self._nodes)
        self._nodes = []

    def put_last(self) -> None:
        """Put the nodes after those of the graph."""
        self._graph.extend(self._nodes)
        self._nodes = []


def _value(name: str, dtype: ir.DataType, row: tuple[int, ...]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([BATCH, *row]))


def _named(value: ir.Value, name: str) -> ir.Value:
    value.name = name
    value.type = ir.TensorType(_FLOAT)
    return value


def _rename(model: ir.Model) -> None:
    """Put the prefix before the names of all values and nodes."""
    values: dict[ir.Value, None] = {}
    for graph in model.graphs():
        values |= dict.fromkeys([*graph.inputs, *graph.initializers.values()])
        for node in graph:
            values |= dict.fromkeys(value for value in node.outputs if value.name)
            node.name = None
    ir.convenience.rename_values(list(values), [f"{_INNER}{value.name}" for value in values])


def _finished(model: ir.Model) -> ir.Model:
    """Name what has no name yet, and leave out what is not needed to run the model."""
    model = passes.NameFixPass()(model).model
    model = passes.ClearMetadataAndDocStringPass()(model).model
    return passes.RemoveUnusedOpsetsPass()(model).model
