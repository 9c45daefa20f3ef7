"""Cutting a long list into slices that stay put when rows come and go."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_MEAN_ROWS = 512
_MAX_ROWS = 4096

Row = TypeVar("Row")


def slices(rows: Iterable[Row], id_of: Callable[[Row], str]) -> Iterator[list[Row]]:
    """Some 512 rows each, at most 4,096.

    A slice ends after a row whose id hashes to 0 modulo 512, so a new row changes its own slice alone.
    """
    current: list[Row] = []
    for row in rows:
        current.append(row)
        if zlib.crc32(id_of(row).encode()) % _MEAN_ROWS == 0 or len(current) == _MAX_ROWS:
            yield current
            current = []
    if current:
        yield current
