"""Find values of a graph by name, and describe those among which somebody may choose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import onnx_ir as ir

from topb_trainer.errors import ModelImportError

_LISTED = 20
"""Number of values that an error lists, at most."""
_AFTER_CLASSIFIER = frozenset(
    {"Add", "Cast", "DequantizeLinear", "Flatten", "Identity", "LogSoftmax", "QuantizeLinear", "Reshape"}
    | {"Sigmoid", "Softmax", "Squeeze"}
)
"""Operators that may stand between the last linear layer of a classifier and its outputs."""
_LINEAR = frozenset({"Conv", "Gemm", "MatMul"})


def ancestors(values: Iterable[ir.Value], stop: Iterable[ir.Value] = ()) -> set[ir.Value]:
    """Return `values` and all from which they are computed, without going beyond those in `stop`."""
    found: set[ir.Value] = set()
    stops, waiting = set(stop), list(values)
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        found.add(value)
        node = value.producer()
        if value not in stops and node is not None:
            waiting += inputs_of(node)
    return found


def inputs_of(node: ir.Node) -> list[ir.Value]:
    """Return the values that a node reads, among them those that its subgraphs capture."""
    read = list(node.inputs)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = list(attribute.as_graphs())
        else:
            continue
        for graph in graphs:
            read += [value for inner in ir.traversal.RecursiveGraphIterator(graph) for value in inner.inputs]
    return [value for value in read if value is not None]


def find_value(graph: ir.Graph, name: str, option: str) -> ir.Value:
    """Return the value of a graph with a name.

    Args:
        graph: a graph, with shapes.
        name: the name of an output or of any value that a node of the graph computes.
        option: the option that names it, for the error.

    Raises:
        ModelImportError: with reason IMPORT_VALUE_UNKNOWN, and the values that there are.
    """
    named = {value.name: value for value in _computed(graph)}
    if name in named:
        return named[name]
    close = difflib.get_close_matches(name, [other for other in named if other], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ModelImportError(
        f"the graph has no value {name!r}, which {option} names.{hint} {choices(graph)}",
        reason="IMPORT_VALUE_UNKNOWN",
        name=name,
    )


def choices(graph: ir.Graph) -> str:
    """Return sentences that list what may be chosen as features, logits or probabilities."""
    outputs = ", ".join(described(value) for value in graph.outputs)
    computed = list(_computed(graph))
    rows = [value for value in computed if _is_row_of_numbers(value) and not value.is_graph_output()]
    inner = ", ".join(described(value) for value in rows[-_LISTED:][::-1])
    advice = [f"Its outputs are {outputs}."]
    if inner:
        advice.append(f"Values inside it that may be features are {inner}.")
    if suggested := suggested_features(graph):
        advice.append(
            f"The input of its last linear layer is {suggested.name}: try --features {suggested.name}."
        )
    return " ".join(advice)


def described(value: ir.Value) -> str:
    """Return name, type and shape of a value, such as "logits float32 (N, 1000)"."""
    type_ = type_name(value.dtype) if value.dtype else "of unknown type"
    if value.shape is None:
        return f"{value.name} {type_} (unknown shape)"
    dims = [str(dim) if isinstance(dim, int) else (dim.value or "?") for dim in value.shape]
    return f"{value.name} {type_} ({', '.join(dims)})"


def type_name(dtype: ir.DataType) -> str:
    """Return the name of a type as numpy has it, such as float32."""
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype.name, dtype.name.lower())


def suggested_features(graph: ir.Graph) -> ir.Value | None:
    """Return the input of the last linear layer before an output; None if there is no such layer."""
    for output in graph.outputs:
        value: ir.Value | None = output
        while value is not None and (node := value.producer()) is not None:
            if node.op_type in _LINEAR:
                return node.inputs[0]
            if node.op_type not in _AFTER_CLASSIFIER:
                break
            computed = [given for given in node.inputs if given is not None and given.producer() is not None]
            value = computed[0] if computed else None
    return None


def _computed(graph: ir.Graph) -> Iterable[ir.Value]:
    for node in graph:
        yield from (value for value in node.outputs if value.name)


def _is_row_of_numbers(value: ir.Value) -> bool:
    """Return whether the value may hold D numbers for each image."""
    if value.dtype not in _FLOATS or value.shape is None or len(value.shape) < 2:
        return False
    _, size, *rest = value.shape
    return isinstance(size, int) and size > 1 and all(dim == 1 for dim in rest)


_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
