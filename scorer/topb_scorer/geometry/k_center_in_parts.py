"""K-center greedy over more features than fit into memory: in each part of the pool, then over all picks.

For callers of the Python function. No query strategy uses it: `core_set` refuses a pool over the memory
limit.
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
    """Return `budget` rows of a pool that is given in parts, picked on two levels and marked as approximate.

    K-center greedy picks `budget` rows of each part, starting from `labelled`; k-center greedy over the picks
    of all parts, again starting from `labelled`, then picks the result. The radius of the batch is at most 4
    times that of the best possible batch, because each level adds at most twice that; over the whole pool,
    k-center greedy guarantees 2 times. This is the algorithm of Malkomes, Kusner, Chen, Weinberger and
    Moseley, Fast distributed k-center clustering with outliers on massive data (NIPS 2015), section 3. Picks
    of parts as composable core-sets are due to Indyk, Mahabadi, Mahdian and Mirrokni, Composable core-sets
    for diversity and coverage maximization (PODS 2014).

    The result depends on how the pool is split. Only the picks of a part are kept, so a part may be a slice
    of a memory-mapped array, or be read when it is requested.

    Args:
        parts: float32 (Nᵢ, D) arrays, finite. `indices` counts their rows in this order.
        labelled: float32 (L, D), finite; L may be 0.
        budget: how many rows to pick, 0 to ΣNᵢ.
        seed: draws the first pick of each level if L is 0.
        device: as for `k_center_greedy`.
        max_kept_bytes: limit of the memory that the picks of all parts take.

    Raises:
        InvalidRequestError: as `k_center_greedy`; the message names the part.
        LimitExceededError: with reason FEATURES_OVER_LIMIT.
    """
    check_budget(budget, budget)
    kept_rows, kept_indices, size, kept_bytes = [labelled[:0]], [np.empty(0, np.int64)], 0, 0
    for number, part in enumerate(parts):
        check_features(part, labelled, f"part {number} of the pool")
        kept_bytes += min(budget, len(part)) * part.itemsize * part.shape[1]
        if kept_bytes > max_kept_bytes:
            raise LimitExceededError(
                f"the picks of the first {number + 1} parts take {kept_bytes} bytes, the limit is "
                f"{max_kept_bytes}; make fewer, larger parts, ask for fewer rows or raise the limit",
                reason="FEATURES_OVER_LIMIT",
                bytes=kept_bytes,
                limit=max_kept_bytes,
            )
        # Copied into memory, so that a memory-mapped part is not read from its file again and again.
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
