"""K-center greedy over more features than fit into memory.

This module is for Python callers. No query strategy uses it: `core_set` refuses pools over the memory limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from topb_scorer.errors import LimitExceededError
from topb_scorer.geometry.euclidean import Features, check_features
from topb_scorer.geometry.k_center import KCenterResult, check_budget, k_center_greedy

DEFAULT_MAX_KEPT_BYTES = 4 * 2**30


def k_center_greedy_in_parts(
    parts: Iterable[Features],
    labelled: Features,
    budget: int,
    *,
    seed: int = 0,
    device: str = "cpu",
    max_kept_bytes: int = DEFAULT_MAX_KEPT_BYTES,
) -> KCenterResult:
    """Return `budget` rows of a pool that is given in parts, marked as approximate.

    K-center greedy, starting from `labelled`, first picks `budget` rows of each part, and then picks the
    result from the picks of all parts. The radius of the batch is at most 4 times the smallest possible
    radius, because each level adds at most twice that; over the whole pool, the factor would be 2.

    This is the algorithm of Malkomes, Kusner, Chen, Weinberger and Moseley, Fast distributed k-center
    clustering with outliers on massive data (NIPS 2015), section 3. Composable core-sets are due to Indyk,
    Mahabadi, Mahdian and Mirrokni, Composable core-sets for diversity and coverage maximization (PODS 2014).

    The result depends on how the pool is split. Only the picks of each part are kept, so a part may be a
    slice of a memory-mapped array, or may be read when it is requested.

    Args:
        parts: float32 (Nᵢ, D) arrays, finite. `indices` of the result counts their rows in this order.
        labelled: float32 (L, D), finite; L may be 0.
        budget: the number of rows to pick, 0 to ΣNᵢ.
        seed: the seed for drawing the first pick of each level if L is 0.
        device: as for `k_center_greedy`.
        max_kept_bytes: the maximum memory for the picks of all parts, in bytes.

    Raises:
        InvalidRequestError: as for `k_center_greedy`. The message names the part.
        LimitExceededError: with reason FEATURES_OVER_LIMIT.
    """
    check_budget(budget, budget)
    kept_rows, kept_indices, size, kept_bytes = [labelled[:0]], [np.empty(0, np.int64)], 0, 0
    for number, part in enumerate(parts):
        check_features(part, labelled, f"part {number} of the pool")
        kept_bytes += min(budget, len(part)) * part.itemsize * part.shape[1]
        if kept_bytes > max_kept_bytes:
            raise LimitExceededError(
                f"the picks of the first {number + 1} parts take {kept_bytes} bytes; the limit is "
                f"{max_kept_bytes}: use fewer and larger parts, a smaller budget or a higher limit",
                reason="FEATURES_OVER_LIMIT",
                bytes=kept_bytes,
                limit=max_kept_bytes,
            )
        # Copy the part into memory, so that a memory-mapped file is not read repeatedly.
        rows = np.array(part)
        picks = k_center_greedy(rows, labelled, min(budget, len(rows)), seed=seed, device=device).indices
        kept_rows.append(rows[picks])
        kept_indices.append(size + picks)
        size += len(rows)
    check_budget(budget, size)
    indices = np.concatenate(kept_indices)
    order = np.argsort(indices)
    union = np.concatenate(kept_rows)[order]
    result = k_center_greedy(union, labelled, budget, seed=seed, device=device)
    return replace(result, indices=indices[order][result.indices], approximate=True)
