"""Define pools of vectors, which take the place of an encoder's outputs: their shards, blocks and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from topb_scorer.pools.pool import Shard, Unreadable, id_fault

PROBABILITY_TOLERANCE = 0.01
"""How far the sum of a row's probabilities may be from 1, which float16 and bfloat16 keep for any C."""
_SHARD_BYTES = 2**24
_BLOCK_BYTES = 2**21
_MOST_SHARD_ROWS = 2**16
_MOST_BLOCK_ROWS = 2**12

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class VectorLayout:
    """The sizes of the rows of a pool of vectors."""

    width: int
    """D, the number of elements of a vector; 0 if the pool has no vector."""
    classes: int = 0
    """C, the number of probabilities of a row; 0 if the pool has none."""

    @property
    def shard_rows(self) -> int:
        """The number of rows of a shard: about 16 MiB of numbers, and at most 65,536 rows."""
        return self._rows_of(_SHARD_BYTES, _MOST_SHARD_ROWS)

    @property
    def block_rows(self) -> int:
        """The number of rows that are read at once: about 2 MiB of numbers, and at most 4,096 rows."""
        return self._rows_of(_BLOCK_BYTES, _MOST_BLOCK_ROWS)

    def _rows_of(self, size: int, most: int) -> int:
        return max(1, min(most, size // (4 * max(1, self.width + self.classes))))

    def __str__(self) -> str:
        probabilities = f" and {self.classes} probabilities" if self.classes else ""
        return f"vectors of {self.width} numbers{probabilities}"


@dataclass(frozen=True)
class VectorRows:
    """Consecutive rows of a shard. The numbers of rows with faults have no meaning."""

    ids: list[str]
    """n ids. A row without an id has its position instead."""
    vectors: Float32Array
    """float32 (n, D)."""
    probabilities: Float32Array
    """float32 (n, C), or (n, 0) if they were not asked for."""
    faults: Mapping[int, Unreadable]
    """Rows that cannot be used, by index."""


@runtime_checkable
class VectorShard(Shard, Protocol):
    """A shard of vectors."""

    @property
    def layout(self) -> VectorLayout:
        """The sizes of the rows."""

    def blocks(self, *, with_probabilities: bool) -> Iterator[VectorRows]:
        """Yield the rows in order, starting with the first at each call.

        Args:
            with_probabilities: whether to read and check the probabilities.
        """


@dataclass(frozen=True)
class GivenNumbers:
    """The vectors or the probabilities of n rows as they were given, before their values are checked."""

    values: Float32Array
    """float32 (n, width); zeros for rows with faults."""
    faults: Mapping[int, Unreadable]
    """Rows that have none, or another number of them, by index."""


@dataclass(frozen=True)
class ListColumn:
    """A column of lists, with the reasons for which its rows are skipped."""

    name: str
    missing: str
    """The reason if a list is null."""
    other_width: str
    """The reason if a list has another number of elements than the first one in the file."""


def as_float32(values: NDArray[Any]) -> Float32Array:
    """Return numbers as float32. Numbers beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def numbers_of_lists(lists: pa.Array, width: int, column: ListColumn) -> GivenNumbers:
    """Return the numbers of a column of lists.

    Args:
        lists: n lists of floating-point numbers, of a fixed or any size. A null in a list becomes NaN.
        width: the number of elements that a list must have.
        column: the column, for the reasons of faults.
    """
    lists = lists.storage if isinstance(lists, pa.ExtensionArray) else lists
    lengths = pc.list_value_length(lists)
    usable = pc.fill_null(pc.equal(lengths, width), False).to_numpy(zero_copy_only=False) & (width > 0)
    values = np.zeros((len(lists), width), np.float32)
    # Nulls become NaN when they are converted to numpy.
    flat = lists.filter(pa.array(usable)).flatten().to_numpy(zero_copy_only=False)
    values[usable] = as_float32(flat).reshape(np.count_nonzero(usable), width)
    faults = {}
    for row in np.flatnonzero(~usable).tolist():
        length = lengths[row].as_py()
        if length is None:
            faults[row] = Unreadable(column.missing, f"column {column.name} is null")
            continue
        detail = f"column {column.name} has a list of {length} numbers; expected {width or 'at least one'}"
        faults[row] = Unreadable(column.other_width, detail)
    return GivenNumbers(values, faults)


def checked_rows(
    ids: Sequence[str | None],
    vectors: GivenNumbers,
    probabilities: GivenNumbers | None,
    where: Callable[[int], str],
) -> VectorRows:
    """Return rows with the faults of their ids and values.

    Args:
        ids: n ids; None or empty if a row has none.
        vectors: n vectors.
        probabilities: n rows of probabilities; None if they were not asked for.
        where: returns the position of a row in the pool, by index.
    """
    given = GivenNumbers(np.zeros((len(ids), 0), np.float32), {}) if probabilities is None else probabilities
    faults = _faults_of_probabilities(given) if probabilities is not None else {}
    faults |= _faults_of_vectors(vectors)
    known: list[str] = []
    for row, id_ in enumerate(ids):
        if not id_:
            faults[row] = Unreadable("ID_MISSING", f"the id is empty at {where(row)}")
            known.append(where(row))
            continue
        fault = id_fault(id_)
        if fault is not None:
            faults[row] = fault
            id_ = f"{id_[:64]}…"
        known.append(id_)
    return VectorRows(known, vectors.values, given.values, faults)


def _faults_of_vectors(given: GivenNumbers) -> dict[int, Unreadable]:
    faults = {}
    for row in np.flatnonzero(~np.isfinite(given.values).all(axis=1)).tolist():
        element = int(np.argmin(np.isfinite(given.values[row])))
        detail = (
            f"element {element} of the vector is {given.values[row, element]}; expected finite numbers "
            "within the range of float32"
        )
        faults[row] = Unreadable("VECTOR_NOT_FINITE", detail)
    return faults | dict(given.faults)


def _faults_of_probabilities(given: GivenNumbers) -> dict[int, Unreadable]:
    values = given.values
    with np.errstate(invalid="ignore", over="ignore"):
        sums = values.sum(axis=1, dtype=np.float64)
        valid = (abs(sums - 1) <= PROBABILITY_TOLERANCE) & ((values >= 0) & (values <= 1)).all(axis=1)
    faults = {}
    for row in np.flatnonzero(~valid).tolist():
        detail = (
            f"the probabilities lie between {values[row].min():g} and {values[row].max():g}, and sum to "
            f"{sums[row]:g}; expected numbers from 0 to 1 whose sum is 1 ± {PROBABILITY_TOLERANCE}"
        )
        faults[row] = Unreadable("PROBABILITIES_INVALID", detail)
    return faults | dict(given.faults)
