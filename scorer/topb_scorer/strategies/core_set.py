"""Core-set: k-center greedy from the labelled set.

Sener and Savarese, Active learning for convolutional neural networks: a core-set approach (ICLR 2018),
algorithm 1. The algorithm itself is `geometry.k_center`.
"""

from __future__ import annotations

from topb_scorer.geometry.k_center import k_center_greedy
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates, finite


class CoreSet(SetBasedStrategy):
    """Pick the image farthest from all that is labelled or picked, again and again."""

    name = "core_set"
    needs = frozenset({"features"})

    def select(self, candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
        """Return the greedy picks; scores and radii are how far each was from its nearest centre."""
        result = k_center_greedy(
            candidates.features, candidates.labelled, budget, seed=seed, device=candidates.search_device
        )
        radii = finite(result.radii)
        return SetBatch(result.indices, radii, radii)
