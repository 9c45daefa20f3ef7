"""Run a model as it was given, to find out what it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from topb_trainer.errors import ModelImportError
from topb_trainer.importing.batch import fixed_batch
from topb_trainer.importing.graphs import RowShape
from topb_trainer.importing.onnx_file import cpu_session, one_line, part

_BATCH = 8
_PROBED = 3
"""Number of images that the first run takes. It is a number that is unlikely to be a size of the model."""


@dataclass(frozen=True)
class OriginalModel:
    """The part of a model that computes some of its values, with the batch size that it was exported with."""

    names: Sequence[str]
    """The values."""
    batch: int | None
    """The number of images that it takes at a time; None for any number."""
    dtype: np.dtype[Any]
    """The type of its input."""
    run: Callable[[NDArray[Any]], list[NDArray[Any]]]

    def values_of(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the values for N rows of the input, by name."""
        size = self.batch or _BATCH
        parts = []
        for start in range(0, len(rows), size):
            taken = rows[start : start + size].astype(self.dtype)
            given = len(taken)
            if self.batch is not None and given < size:
                taken = np.concatenate([taken, np.repeat(taken[-1:], size - given, axis=0)])
            parts.append([values[:given] if self.batch else values for values in self.run(taken)])
        return {
            name: np.concatenate([part[index] for part in parts]) for index, name in enumerate(self.names)
        }

    def row_shapes(self, row: NDArray[Any]) -> dict[str, RowShape]:
        """Run the model on copies of one row of the input (1, …), and return what its values hold for it.

        Raises:
            ModelImportError: with reason IMPORT_ROWS if a value does not have one row for each image, or
                IMPORT_GRAPH if the model does not run.
        """
        count = self.batch or _PROBED
        found = self.run(np.repeat(row, count, axis=0).astype(self.dtype))
        shapes = {}
        for name, value in zip(self.names, found, strict=True):
            if value.ndim < 2 or len(value) != count:
                raise ModelImportError(
                    f"for {count} images, {name} has the shape {value.shape}; expected {count} rows, one for "
                    "each image; choose a value that has",
                    reason="IMPORT_ROWS",
                    name=name,
                )
            shapes[name] = RowShape(ir.DataType.from_numpy(value.dtype), value.shape[1:])
        return shapes


def original_model(source: ir.Model, image_input: ir.Value, names: Sequence[str]) -> OriginalModel:
    """Load the part of a model that computes `names` from images.

    Raises:
        ModelImportError: with reason IMPORT_GRAPH if ONNX Runtime cannot load it.
    """
    names = list(dict.fromkeys(names))
    model = part(source, [str(image_input.name)], names)
    session = cpu_session(model)

    def run(rows: NDArray[Any]) -> list[NDArray[Any]]:
        try:
            found: list[NDArray[Any]] = session.run(None, {str(image_input.name): rows})
        except Exception as error:
            raise ModelImportError(
                f"the graph does not run on {len(rows)} images of the shape {rows.shape[1:]}: "
                f"{one_line(error)}; if it was exported for another size, give that with --size; if it was "
                "exported for a fixed number of images, export it with a dynamic batch dimension",
                reason="IMPORT_GRAPH",
            ) from error
        return found

    dtype = image_input.dtype or ir.DataType.FLOAT
    return OriginalModel(names, fixed_batch(image_input), np.dtype(dtype.numpy()), run)


def float32_rows(values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Return values (N, …) as float32 (N, K)."""
    return {name: value.reshape(len(value), -1).astype(np.float32) for name, value in values.items()}
