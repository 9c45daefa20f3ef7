"""BADGE: k-means++ on gradient embeddings.

Ash et al., Deep batch active learning by diverse, uncertain gradient lower bounds, ICLR 2020.
"""

from __future__ import annotations

from topb_scorer.strategies.badge_algorithm import badge
from topb_scorer.strategies.strategy import SetBatch, SetCandidates, finite


def select(candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
    """Draws by squared distance to what was drawn; scores are the distances, 0 for the first."""
    batch = badge(
        features=candidates.features, probabilities=candidates.probabilities, budget=budget, seed=seed
    )
    return SetBatch(batch.indices, finite(batch.distances))
