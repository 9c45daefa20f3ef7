"""What a pool is, whatever it is read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where an image should be: why there is none."""

    reason: str
    """In UPPER_SNAKE_CASE, such as FILE_MISSING."""
    detail: str
    """For a person."""


@dataclass(frozen=True, slots=True)
class PoolItem:
    """One row of a pool."""

    id: str
    """What the caller knows the image by."""
    image: bytes | NDArray[np.uint8] | Unreadable
    """The encoded image, or uint8 (h, w, 3), or why it could not be read."""


class Shard(Protocol):
    """A part of a pool that is scored and logged as one."""

    @property
    def identity(self) -> str:
        """Changes when the shard's contents do; no two shards of a pool share one."""

    @property
    def rows(self) -> int:
        """How many items it holds."""

    def items(self) -> Iterator[PoolItem]:
        """Reads it from the start."""


@dataclass(frozen=True)
class Pool:
    """All shards of one pool, in an order that means nothing to the result."""

    shards: Sequence[Shard]

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class Columns:
    """The columns of a Parquet pool."""

    id: str = "id"
    """Of ids: strings or integers."""
    image: str = "image"
    """Of encoded images: binary, or a struct with a binary field `bytes`."""
    path: str = "path"
    """Of image paths, absolute or relative to the Parquet file; read where there is no image column."""


def identity_of(*parts: object) -> str:
    """A shard identity from what it depends on: 32 hex digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
