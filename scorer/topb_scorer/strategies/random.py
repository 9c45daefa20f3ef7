"""Random sampling, drawn from each id and the seed: neither order nor sharding changes it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.score_log import ScoredRows

_SIGNIFICAND_BITS = 53


def acquisition(rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
    """Uniform in [0, 1): the first 53 bits of BLAKE2b of the id, keyed with the seed (unsigned, 64 bits)."""
    key = seed.to_bytes(8, "little")
    draws = (
        int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=8, key=key).digest(), "big")
        for id_ in rows.ids
    )
    shift = 64 - _SIGNIFICAND_BITS
    return np.fromiter(
        ((draw >> shift) / 2**_SIGNIFICAND_BITS for draw in draws), np.float64, count=len(rows.ids)
    )
