"""How far each row of the pool is, at most, from the nearest labelled row: where k-center greedy starts.

Greedy needs the farthest points' distances exactly, and of everyone else only that they are not the farthest.
So the labelled rows are put into an inverted file (FAISS), √L lists of √L rows, and each row of the pool is
held against the nearest two lists: some 3√L distances instead of L. On features of CIFAR-10, a tenth of it
labelled, one row in ten has to be held against all of the labelled rows after that, to pick a twentieth of
the pool.
"""

from __future__ import annotations

import faiss
import numpy as np

from topb_scorer.euclidean import ROWS_AT_ONCE, Doubles, Features, Frame

_FEWEST = 256
"""Labelled rows under which one matrix product is as fast."""
_LISTS_PROBED = 2
_ITERATIONS = 4


def upper_bounds(pool: Features, labelled: Features, frame: Frame) -> Doubles:
    """Returns float64 (N,): no row of `pool` is farther from its nearest labelled row, squared Euclidean
    distance.

    A bound may be infinite; all are where there is little to gain, or where float32 would overflow.

    Args:
        pool: float32 (N, D).
        labelled: float32 (L, D).
        frame: tells how large the features are.
    """
    bounds = np.full(len(pool), np.inf)
    if len(labelled) < _FEWEST or not 2.0**-40 < frame.scale < 2.0**40:
        return bounds
    index = _inverted_file(labelled)
    # FAISS sums D squared differences, each rounded; they can underflow as well.
    width = pool.shape[1]
    largest_error = 2 * (width + 4) * 2.0**-24
    underflow = (width + 4) * float(np.finfo(np.float32).tiny)
    at_once = 16 * ROWS_AT_ONCE
    for first in range(0, len(pool), at_once):
        squared, found = index.search(np.ascontiguousarray(pool[first : first + at_once]), 1)
        finite = (found[:, 0] >= 0) & np.isfinite(squared[:, 0])
        bounds[first : first + at_once][finite] = squared[finite, 0] * (1 + largest_error) + underflow
    return bounds


def _inverted_file(labelled: Features) -> faiss.IndexIVFFlat:
    lists = round(len(labelled) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(labelled.shape[1]), labelled.shape[1], lists)
    index.cp.niter = _ITERATIONS
    index.cp.min_points_per_centroid = 1
    rows = np.ascontiguousarray(labelled)
    index.train(rows)
    index.add(rows)
    index.nprobe = _LISTS_PROBED
    return index
