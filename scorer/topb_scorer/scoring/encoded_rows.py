"""Define the rows that an encoder gives for the images of a shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.pools.pool import Shard

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Skip:
    """The reason why a row could not be scored."""

    reason: str
    """A stable name in UPPER_SNAKE_CASE."""
    detail: str


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one shard, in the shard's order, with the encoder's outputs, just computed or kept in a log."""

    shard: Shard
    ids: list[str]
    """n ids."""
    digests: NDArray[np.uint8]
    """uint8 (n, 16): the content digests of the images or vectors."""
    outputs: Mapping[str, Float32Array]
    """The encoder's outputs by name, or vectors in their place, float32 (n, …). They are overwritten when the
    next rows are taken."""
    skips: Mapping[int, Skip]
    """Rows that could not be decoded, by index. Their outputs have no meaning."""
    ends_shard: bool
    """Whether these are the last rows of the shard."""
