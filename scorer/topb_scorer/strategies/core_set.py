"""Core-set: k-center greedy from the labelled set.

Sener and Savarese, Active learning for convolutional neural networks: a core-set approach, ICLR 2018.
"""

from __future__ import annotations

from topb_scorer.geometry.k_center import k_center_greedy
from topb_scorer.strategies.strategy import SetBatch, SetCandidates, finite


def select(candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
    """The farthest from all that is labelled or picked, again and again; scores are the radii."""
    result = k_center_greedy(
        candidates.features, candidates.labelled, budget, seed=seed, device=candidates.search_device
    )
    radii = finite(result.radii)
    return SetBatch(result.indices, radii, radii)
