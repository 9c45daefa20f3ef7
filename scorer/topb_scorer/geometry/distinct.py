"""Find equal rows, so that work on a pool of duplicates does not grow with their number."""

from __future__ import annotations

import numpy as np

from topb_scorer.cancellation import Check, checked
from topb_scorer.geometry.euclidean import Doubles, Features, Indices, blocks


def distinct_rows(rows: Features, check: Check) -> tuple[Indices, Indices]:
    """Return the distinct rows, and which of them each row equals.

    About 40 bytes per row are held in memory.

    Args:
        rows: float32 (n, D), finite.
        check: called before each block of rows.

    Returns:
        first: int64 (m,), the index of the first row of each group of equal rows.
        group: int64 (n,): rows[i] equals rows[first[group[i]]].
    """
    # Equal rows have equal sums, because each sum is computed separately. Other rows hardly ever have.
    weights = np.random.default_rng(0).standard_normal(rows.shape[1])
    sums: Doubles = np.empty(len(rows))
    for block in checked(blocks(len(rows)), check):
        sums[block] = np.einsum("ij,j->i", rows[block].astype(np.float64), weights)
    _, first, group = np.unique(sums, return_index=True, return_inverse=True)
    equal = np.empty(len(rows), np.bool_)
    for block in checked(blocks(len(rows)), check):
        equal[block] = (rows[block] == rows[first[group[block]]]).all(axis=1)
    others = np.flatnonzero(~equal)
    group[others] = len(first) + np.arange(len(others))
    return np.concatenate([first, others]), group
