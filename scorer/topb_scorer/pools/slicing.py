"""Content-defined slicing: adding or removing a row changes only its own slice."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_MEAN_ROWS = 512

Row = TypeVar("Row")


def slices(rows: Iterable[Row], id_of: Callable[[Row], str], *, max_rows: int = 4096) -> Iterator[list[Row]]:
    """Cut rows into slices of 512 rows on average and `max_rows` at most.

    A slice ends after a row whose id hashes to 0 modulo 512, regardless of the slices before it.
    """
    current: list[Row] = []
    for row in rows:
        current.append(row)
        if zlib.crc32(id_of(row).encode()) % _MEAN_ROWS == 0 or len(current) == max_rows:
            yield current
            current = []
    if current:
        yield current
