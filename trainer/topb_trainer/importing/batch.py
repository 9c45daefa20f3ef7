"""Make a graph that was exported for a fixed number of images take any number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from topb_trainer.importing.onnx_file import cpu_session, part
from topb_trainer.importing.values import inputs_of

BATCH = "batch"
"""The name of the batch dimension."""


def fixed_batch(value: ir.Value) -> int | None:
    """Return the number of rows that an input of a graph has; None if it may have any number."""
    first = value.shape[0] if value.shape else None
    return first if isinstance(first, int) else None


def free_batch(model: ir.Model, taken: ir.Value) -> None:
    """Make the first dimension of the input, and of all that is computed from it, symbolic.

    What an exporter wrote for a fixed number of images is rewritten: the first size of constant shapes, and
    constants that are concatenated with what depends on the images, such as a class token. Whether this
    suffices shows only when the graph runs.

    Args:
        model: a model with one input.
        taken: the input. Its shape is known, except for the first dimension.
    """
    assert taken.shape is not None
    if fixed_batch(taken) is not None:
        _rewrite(model, taken)
    for graph in model.graphs():
        for value in [value for node in graph for value in node.outputs]:
            value.shape = None
    taken.shape = ir.Shape([BATCH, *taken.shape[1:]])


def _rewrite(model: ir.Model, taken: ir.Value) -> None:
    dependent = {taken}
    reshapes, concats = [], []
    for node in model.graph:
        if dependent.isdisjoint(inputs_of(node)):
            continue
        dependent |= {*node.outputs}
        if node.op_type == "Reshape" and node.inputs[1] not in dependent:
            reshapes.append(node)
        elif node.op_type == "Concat" and fixed_batch(taken) == 1:
            constants = (value for value in node.inputs if value is not None and value not in dependent)
            concats += [(node, value) for value in constants]
    values = [
        *(node.outputs[0] for node in reshapes),
        *(value for node, _ in concats for value in node.outputs),
    ]
    values += [value for _, value in concats if value.const_value is None]
    shapes = _shapes_in_a_run(model, taken, values)
    for node in reshapes:
        sizes = [-1, *shapes[node.outputs[0]][1:]]
        node.replace_input_with(1, _constant(model.graph, f"{node.outputs[0].name}/shape", sizes))
    for node, value in concats:
        axis = node.attributes["axis"].as_int() % len(shapes[node.outputs[0]])
        constant = value.const_value
        shape = shapes[value] if constant is None else tuple(constant.shape.numpy())
        if axis != 0 and shape[0] == 1:
            _repeat(model.graph, node, value, shape, taken)


def _shapes_in_a_run(
    model: ir.Model, taken: ir.Value, values: Sequence[ir.Value]
) -> dict[ir.Value, tuple[int, ...]]:
    """Return the shapes that values have when the model runs as it was exported."""
    if not values:
        return {}
    assert taken.shape is not None
    assert taken.dtype is not None
    names = list(dict.fromkeys(str(value.name) for value in values))
    session = cpu_session(part(model, [str(taken.name)], names))
    zeros = np.zeros(taken.shape.numpy(), taken.dtype.numpy())
    found = dict(zip(names, session.run(None, {str(taken.name): zeros}), strict=True))
    return {value: found[str(value.name)].shape for value in values}


def _repeat(graph: ir.Graph, node: ir.Node, value: ir.Value, shape: tuple[int, ...], taken: ir.Value) -> None:
    """Give a node the value, which has one row, as often as the input has rows."""
    index = node.inputs.index(value)
    name = f"{node.outputs[0].name}/{index}"
    sizes = ir.node("Shape", [taken])
    rows = ir.node("Gather", [sizes.outputs[0], _constant(graph, f"{name}/first", [0])])
    rest = _constant(graph, f"{name}/rest", list(shape[1:]))
    repeated = ir.node("Concat", [rows.outputs[0], rest], {"axis": 0})
    expanded = ir.node("Expand", [value, repeated.outputs[0]])
    graph.insert_before(node, [sizes, rows, repeated, expanded])
    node.replace_input_with(index, expanded.outputs[0])


def _constant(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    tensor = ir.tensor(np.array(numbers, np.int64), name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(ir.DataType.INT64))
    graph.register_initializer(value)
    return value
