"""Read pools of vectors from NumPy files: `x.npy`, and beside it `x.ids.txt` or `x.ids.npy`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray
from pyarrow import fs

from topb_scorer.errors import InvalidRequestError
from topb_scorer.pools.parquet_file import ROW_NUMBER
from topb_scorer.pools.pool import identity_of
from topb_scorer.pools.storage import Location, Stores
from topb_scorer.pools.storage.location import READ_ERRORS, unreadable_file, unreadable_pool
from topb_scorer.pools.vectors import (
    GivenNumbers,
    VectorLayout,
    VectorRows,
    as_float32,
    checked_rows,
)

SIDE_FILES = (".ids.npy", ".probabilities.npy")
"""The ends of the names of NumPy files that are not pools themselves."""


@dataclass(frozen=True)
class _Array:
    """An array in a NumPy file, of which any rows can be read."""

    file: Location
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """The position of the first row in the file, in bytes."""

    @property
    def width(self) -> int:
        """The number of elements of a row."""
        return self.shape[1] if len(self.shape) > 1 else 1

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows `start` to `stop` (exclusive)."""
        size = self.width * self.dtype.itemsize
        try:
            with self.file.open() as file:
                file.seek(self.offset + start * size)
                content = file.read((stop - start) * size)
        except READ_ERRORS as error:
            raise unreadable_pool(self.file, error) from error
        if len(content) != (stop - start) * size:
            raise unreadable_file(self.file, "NumPy", f"it ends before row {stop}")
        return np.frombuffer(content, self.dtype).reshape(stop - start, *self.shape[1:])


Ids: TypeAlias = pa.Array | _Array | None
"""The ids of the rows of a file: strings, an array of strings or integers, or None to number the rows."""


@dataclass(frozen=True)
class NpyVectorShard:
    """Consecutive rows of one file."""

    identity: str
    rows: int
    layout: VectorLayout
    first_row: int
    vectors: _Array
    probabilities: _Array | None
    ids: Ids
    name: str
    """The path of the file within the pool."""

    def blocks(self, *, with_probabilities: bool) -> Iterator[VectorRows]:
        end = self.first_row + self.rows
        for start in range(self.first_row, end, self.layout.block_rows):
            stop = min(end, start + self.layout.block_rows)
            where = [f"{self.name}:{row}" for row in range(start, stop)]
            yield checked_rows(
                where if self.ids is None else _ids_of(self.ids, start, stop),
                GivenNumbers(as_float32(self.vectors.read(start, stop)), {}),
                GivenNumbers(as_float32(self.probabilities.read(start, stop)), {})
                if with_probabilities and self.probabilities is not None
                else None,
                where.__getitem__,
            )


def npy_shards(location: Location, id_column: str, stores: Stores, name: str) -> list[NpyVectorShard]:
    """Return the shards of `x.npy`, each of `VectorLayout.shard_rows` rows.

    The ids are the lines of `x.ids.txt` or the elements of `x.ids.npy`. Probabilities are in
    `x.probabilities.npy`, if there is such a file.

    Args:
        location: the file, an array of float16, float32 or float64 of shape (N, D) in C order.
        id_column: `ROW_NUMBER` to number the rows instead of reading their ids.
        stores: opens the files beside it.
        name: the path of the file within the pool.

    Raises:
        InvalidRequestError: there are no ids, an array has the wrong type or shape, or the files have
            different numbers of rows.
        UnreadablePoolError: a file is damaged.
    """
    stem = str(location)[: -len(".npy")]
    try:
        vectors = _opened(location, "two dimensions, with a vector in each row")
        beside = stores.location(f"{stem}.probabilities.npy")
        has_probabilities = beside.kind() == fs.FileType.File
        probabilities = _opened(beside, "one row for each vector") if has_probabilities else None
        ids, ids_file = (None, None) if id_column == ROW_NUMBER else _found_ids(stem, stores)
        files = [location, *([beside] if has_probabilities else []), *([ids_file] if ids_file else [])]
        stamps = [[str(file), *file.stamp()] for file in files]
    except READ_ERRORS as error:
        raise unreadable_pool(location, error) from error
    rows = vectors.shape[0]
    for what, found in (("ids", ids), ("rows of probabilities", probabilities)):
        count = rows if found is None else found.shape[0] if isinstance(found, _Array) else len(found)
        if count != rows:
            raise InvalidRequestError(
                f"{location} has {rows} vectors, but {count} {what} beside it; expected one for each "
                "vector, in the same order",
                reason="POOL_NPY",
                file=location,
            )
    layout = VectorLayout(vectors.width, probabilities.width if probabilities else 0)
    size = layout.shard_rows
    return [
        NpyVectorShard(
            identity=identity_of("npy", stamps, id_column, name, start, size),
            rows=min(size, rows - start),
            layout=layout,
            first_row=start,
            vectors=vectors,
            probabilities=probabilities,
            ids=ids,
            name=name,
        )
        for start in range(0, rows, size)
    ]


def _opened(file: Location, expected: str, *, dimensions: int = 2, kinds: str = "f") -> _Array:
    """Read the header of a NumPy file, which describes the array. Nothing is ever unpickled."""
    with file.open() as source:
        try:
            version = npy.read_magic(source)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = read_header(source)
        except ValueError as error:
            raise unreadable_file(file, "NumPy", error) from error
        offset, size = source.tell(), source.size()
    types = "strings or integers" if "U" in kinds else "float16, float32 or float64"
    if dtype.hasobject:
        raise _unfit(file, f"Python objects, which would have to be unpickled; expected {types}")
    if dtype.kind not in kinds or (dtype.kind == "f" and dtype.itemsize > 8):
        raise _unfit(file, f"{dtype}; expected {types}")
    if len(shape) != dimensions or 0 in shape[1:]:
        raise _unfit(file, f"an array of shape {shape}; expected {expected}")
    if is_fortran and dimensions > 1:
        raise _unfit(file, "an array in Fortran order; save numpy.ascontiguousarray(array) instead")
    expected_size = offset + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if size != expected_size:
        raise unreadable_file(file, "NumPy", f"it has {size} bytes; expected {expected_size}")
    return _Array(file, dtype, shape, offset)


def _found_ids(stem: str, stores: Stores) -> tuple[Ids, Location]:
    lines, array = stores.location(f"{stem}.ids.txt"), stores.location(f"{stem}.ids.npy")
    found = [file for file in (lines, array) if file.kind() == fs.FileType.File]
    if len(found) != 1:
        fault = "has no ids" if not found else "has two files of ids"
        raise InvalidRequestError(
            f"{stem}.npy {fault}; expected {lines} with one id on each line, or {array} with an array of "
            f"strings or integers. Give {ROW_NUMBER} as the column of ids to number the rows instead",
            reason="POOL_NPY",
            file=f"{stem}.npy",
        )
    if found[0] is array:
        return _opened(array, "one id for each vector", dimensions=1, kinds="USiu"), array
    with lines.open() as source:
        try:
            text = source.read().decode()
        except UnicodeDecodeError as error:
            raise unreadable_file(lines, "UTF-8 text", error) from error
    ids = [line.removesuffix("\r") for line in text.split("\n")]
    # Arrow keeps the strings of many rows in little memory.
    return pa.array(ids if ids[-1] else ids[:-1], pa.large_string()), lines


def _ids_of(ids: pa.Array | _Array, start: int, stop: int) -> Sequence[str | None]:
    if not isinstance(ids, _Array):
        strings: list[str | None] = ids.slice(start, stop - start).to_pylist()
        return strings
    values = ids.read(start, stop)
    try:
        decoded = np.strings.decode(values) if ids.dtype.kind == "S" else values
        return list(map(str, decoded.tolist()))
    except UnicodeDecodeError as error:
        raise unreadable_file(ids.file, "UTF-8 text", error) from error


def _unfit(file: Location, fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"{file} contains {fault}", reason="POOL_NPY", file=file)
