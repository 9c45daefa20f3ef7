"""What every kind of pool has in common: shards, items, and the columns of ids and images."""

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
    """Takes the place of an image that cannot be read."""

    reason: str
    """In UPPER_SNAKE_CASE, such as FILE_MISSING."""
    detail: str
    """The reason in words, for a person."""


@dataclass(frozen=True, slots=True)
class PoolItem:
    """One row of a pool."""

    id: str
    """The caller's name for the image."""
    image: bytes | NDArray[np.uint8] | Unreadable
    """The encoded image, or uint8 (h, w, 3), or why it cannot be read."""


class Shard(Protocol):
    """A part of a pool that is scored and logged as a unit."""

    @property
    def identity(self) -> str:
        """A name for the contents: it changes when they do, and no two shards of a pool share one."""

    @property
    def rows(self) -> int:
        """The number of items."""

    def items(self) -> Iterator[PoolItem]:
        """Read the items from the first one on. May be called again."""


@dataclass(frozen=True)
class OpenPool:
    """The shards of a pool that was opened. Their order does not affect the result."""

    shards: Sequence[Shard]

    @property
    def rows(self) -> int:
        """The number of rows in all shards."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class Columns:
    """The columns of Parquet and CSV files. Image folders and WebDataset have none."""

    id: str
    """Ids: strings or, in Parquet, integers."""
    image: str
    """Encoded images, in Parquet only: binary, or a struct with a binary field `bytes`."""
    path: str
    """Paths and URLs of images, relative to the file's folder or absolute. In Parquet they are read only if
    there is no image column."""


def identity_of(*parts: object) -> str:
    """Return a shard identity, 32 hex digits, from everything that it depends on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
