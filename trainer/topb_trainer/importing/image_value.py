"""Find the input of a graph that takes images, and how it takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import onnx_ir as ir

from topb_trainer.errors import ModelImportError
from topb_trainer.importing.input_rule import InputOptions, Layout, Size
from topb_trainer.importing.values import ancestors, described

_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.UINT8)
_CHANNEL_AXIS: dict[Layout, int] = {"nchw": 1, "nhwc": 3}
_IMAGE_AXES: dict[Layout, tuple[int, int]] = {"nchw": (2, 3), "nhwc": (1, 2)}


def find_image_input(graph: ir.Graph, values: Sequence[ir.Value]) -> ir.Value:
    """Return the only input of the graph from which `values` are computed.

    Raises:
        ModelImportError: with reason IMPORT_INPUTS if there is another number of inputs, or if the input
            cannot hold images.
    """
    needed = ancestors(values)
    inputs = [value for value in graph.inputs if value in needed and not value.is_initializer()]
    if len(inputs) != 1:
        found = ", ".join(map(described, inputs)) or "none"
        names = " and ".join(str(value.name) for value in values)
        raise ModelImportError(
            f"{names} must be computed from one input, the images; the graph computes it from "
            f"{len(inputs)} inputs: {found}. Choose other values, or export the part of the model that takes "
            "images alone",
            reason="IMPORT_INPUTS",
        )
    (images,) = inputs
    if images.dtype not in _TYPES or (images.shape is not None and len(images.shape) != 4):
        raise ModelImportError(
            f"the input is {described(images)}; expected images of the shape (N, 3, height, width) or "
            "(N, height, width, 3) as float32, float16, float64 or uint8; export such a model",
            reason="IMPORT_INPUTS",
        )
    return images


def size_and_layout(images: ir.Value, options: InputOptions) -> tuple[Size, Layout]:
    """Return height and width, and the order of the dimensions, of the images that an input takes.

    Raises:
        ModelImportError: with reason IMPORT_LAYOUT or IMPORT_SIZE, if the graph does not tell and the options
            do not either, or if they contradict each other.
    """
    dims = list(images.shape) if images.shape is not None else [None] * 4
    fixed = [dim if isinstance(dim, int) else None for dim in dims]
    layout = _layout(images, fixed, options.layout)
    told = tuple(fixed[axis] for axis in _IMAGE_AXES[layout])
    if options.size is None and None in told:
        raise ModelImportError(
            f"the input is {described(images)}, whose height and width are not fixed; give the size for "
            "which the model was trained, such as --size 224",
            reason="IMPORT_SIZE",
        )
    size = options.size or cast(Size, told)
    if any(own not in (None, given) for own, given in zip(told, size, strict=True)):
        raise ModelImportError(
            f"the input is {described(images)}, which does not take images of {size[0]}×{size[1]} pixels; "
            "leave --size out, or export the model for that size",
            reason="IMPORT_SIZE",
        )
    return size, layout


def _layout(images: ir.Value, fixed: Sequence[int | None], given: Layout | None) -> Layout:
    possible = [layout for layout, axis in _CHANNEL_AXIS.items() if fixed[axis] in (None, 3)]
    certain = [layout for layout, axis in _CHANNEL_AXIS.items() if fixed[axis] == 3]
    candidates = certain if len(certain) == 1 else possible
    if given in possible or (given is None and len(candidates) == 1):
        return given or candidates[0]
    if not possible:
        fault = "has no dimension of 3 channels; export a model of RGB images"
    elif given is not None:
        fault = f"cannot be {given.upper()}; leave --layout out"
    else:
        fault = "may be (N, 3, height, width) or (N, height, width, 3); give --layout nchw or --layout nhwc"
    raise ModelImportError(
        f"the input is {described(images)}, which {fault}", reason="IMPORT_LAYOUT", layout=given or ""
    )
