"""Core-set: k-center greedy from the labelled set.

Sener and Savarese, Active learning for convolutional neural networks: a core-set approach (ICLR 2018),
algorithm 1. The algorithm is implemented in `geometry.k_center`.
"""

from __future__ import annotations

from topb_scorer.cancellation import Check, never_cancelled
from topb_scorer.geometry.k_center import k_center_greedy
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates, finite


class CoreSet(SetBasedStrategy):
    """Repeatedly pick the image that is farthest from all labelled and picked images."""

    name = "core_set"
    needs = frozenset({"features"})

    def select(
        self, candidates: SetCandidates, *, budget: int, seed: int, check: Check = never_cancelled
    ) -> SetBatch:
        """Return the greedy picks. Scores and radii are their distances to the nearest centre."""
        result = k_center_greedy(
            candidates.features,
            candidates.labelled,
            budget,
            seed=seed,
            device=candidates.search_device,
            check=check,
        )
        radii = finite(result.radii)
        return SetBatch(result.indices, radii, radii)
