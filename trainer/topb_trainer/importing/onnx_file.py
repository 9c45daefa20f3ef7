"""Read an ONNX file, with its weights in other files of its directory, and check that it can be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx_ir.passes import common as passes

from topb_scorer.scoring.cores import usable_cores
from topb_trainer.errors import ModelImportError

_OLDEST_OPSET = 7
"""From this version on, operators broadcast as those do that are put before and after the graph."""
_MAX_BYTES = 2**31 - 1
"""The largest protobuf message."""


def read_onnx(path: Path) -> ir.Model:
    """Return the model in an ONNX file, with all weights in memory and without local functions.

    Raises:
        ModelImportError: the file is missing or not ONNX, its weights lie outside its directory or are too
            large, or its opset is not supported.
    """
    model = ir.from_proto(_parsed(path))
    _check_opset(model, path)
    model = simplified(model)
    _load_weights(model, path)
    return model


def simplified(model: ir.Model) -> ir.Model:
    """Return a model without local functions, notes and constant nodes, whose inputs are no weights."""
    for simplify in (
        passes.InlinePass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.RemoveInitializersFromInputsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    ):
        model = simplify(model).model
    return model


def to_bytes(model: ir.Model) -> bytes:
    """Return the ONNX file of a model, the same bytes for the same model."""
    return ir.to_proto(model).SerializeToString(deterministic=True)


def part(source: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """Return a copy of what computes `outputs` from `inputs`, and nothing else."""
    graph = ir.convenience.extract(source.graph, inputs, outputs)
    # The order of a set decided about the order of the initializers.
    constants = sorted(graph.initializers.items())
    graph.initializers.clear()
    graph.initializers.update(constants)
    graph.name = "topb"
    graph.opset_imports.update(source.opset_imports)
    return ir.Model(graph, ir_version=source.ir_version)


def cpu_session(model: ir.Model | bytes) -> ort.InferenceSession:
    """Load a model on the CPU. It tells its errors, and does not log them too.

    Raises:
        ModelImportError: with reason IMPORT_GRAPH if ONNX Runtime cannot load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 4
    try:
        content = model if isinstance(model, bytes) else to_bytes(model)
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's errors have no public base class in common.
        raise ModelImportError(
            f"ONNX Runtime {ort.__version__} cannot load the graph: {one_line(error)}; export the model "
            "again, with operators that ONNX Runtime has",
            reason="IMPORT_GRAPH",
        ) from error


def one_line(error: Exception) -> str:
    """Return the message of an error of ONNX Runtime without its line breaks."""
    return " ".join(str(error).split())


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ModelImportError(
            f"{path} cannot be read: {error.strerror}; give an ONNX file", reason="IMPORT_NOT_ONNX", file=path
        ) from error
    except DecodeError as error:
        raise _not_onnx(path, "it is not a protobuf message of that kind") from error
    # Protobuf accepts many files that are something else, and skips what it does not know.
    if not (proto.ir_version and proto.opset_import and proto.graph.output):
        raise _not_onnx(path, "it has no graph, no opset or no version")
    return proto


def _not_onnx(path: Path, fault: str) -> ModelImportError:
    return ModelImportError(
        f"{path} is not an ONNX model: {fault}; export it to ONNX, or give a PyTorch model with --torch",
        reason="IMPORT_NOT_ONNX",
        file=path,
    )


def _check_opset(model: ir.Model, path: Path) -> None:
    opset = model.opset_imports.get("", 0)
    if opset < _OLDEST_OPSET:
        fault = f"older than {_OLDEST_OPSET}, the oldest that topb extends"
    elif not _runs(model.ir_version, model.opset_imports):
        fault = f"too new for ONNX Runtime {ort.__version__}, or of a domain that it does not have"
    else:
        return
    versions = ", ".join(f"{domain or 'ai.onnx'} {opset}" for domain, opset in model.opset_imports.items())
    raise ModelImportError(
        f"{path} has IR version {model.ir_version} and the opsets {versions}: {fault}; export the model "
        "again with another opset, such as 18",
        reason="IMPORT_OPSET",
        file=path,
    )


def _runs(ir_version: int, opsets: dict[str, int]) -> bool:
    """Return whether ONNX Runtime loads a graph of these versions that computes nothing."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        # ONNX Runtime's errors have no public base class in common.
        return False
    return True


def _load_weights(model: ir.Model, path: Path) -> None:
    """Read the tensors that lie in other files. They must be in the directory of the model or below it."""
    directory = path.parent.resolve()
    total = 0
    for tensor in _tensors(model):
        total += tensor.nbytes
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        file = (directory / tensor.location).resolve()
        if not file.is_relative_to(directory):
            raise _external(path, tensor, f"which is outside of {directory}; move the file into it")
        if not file.is_file():
            raise _external(path, tensor, f"but {file} is missing; put it there")
        end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        if end > file.stat().st_size or (tensor.length or tensor.nbytes) < tensor.nbytes:
            raise _external(path, tensor, f"which is shorter than {end} bytes; copy the whole file again")
        tensor.base_dir = directory
    if total > _MAX_BYTES:
        raise ModelImportError(
            f"{path} has {total / 2**30:.1f} GiB of weights; a bundle holds at most 2 GiB in one graph; "
            "export a smaller model, or one in float16",
            reason="IMPORT_TOO_LARGE",
            file=path,
        )
    ir.external_data.load_to_model(model)
    for tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            raise _external(path, tensor, "but it is an attribute of a node; save the model in one file")


def _external(path: Path, tensor: ir.ExternalTensor, fault: str) -> ModelImportError:
    return ModelImportError(
        f"{path}: the tensor {tensor.name} is in {tensor.location}, {fault}",
        reason="IMPORT_EXTERNAL_DATA",
        file=path,
        location=tensor.location,
    )


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        yield from (
            value.const_value for value in graph.initializers.values() if value.const_value is not None
        )
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.as_tensors()
