"""Random sampling. It depends neither on the order of the pool nor on its shards."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.strategies.strategy import Output, PointwiseStrategy

_SIGNIFICAND_BITS = 53


class Random(PointwiseStrategy):
    """Pick images uniformly at random. The picks depend only on the ids and the seed."""

    name = "random"
    needs = frozenset[Output]()

    def acquisition(self, rows: ScoredRows, *, seed: int) -> NDArray[np.float64]:
        """Return pseudo-random scores in [0, 1): 53 bits of each id's BLAKE2b hash, keyed with the seed."""
        key = seed.to_bytes(8, "little")
        draws = (
            int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=8, key=key).digest(), "big")
            for id_ in rows.ids
        )
        shift = 64 - _SIGNIFICAND_BITS
        return np.fromiter(
            ((draw >> shift) / 2**_SIGNIFICAND_BITS for draw in draws), np.float64, count=len(rows.ids)
        )
