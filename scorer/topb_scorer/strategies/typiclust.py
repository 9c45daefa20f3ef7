"""TypiClust: the most typical of each cluster without labels.

Hacohen, Dekel and Weinshall, Active learning on a budget: opposite strategies suit high and low budgets,
ICML 2022.
"""

from __future__ import annotations

from topb_scorer.strategies.strategy import SetBatch, SetCandidates, finite
from topb_scorer.strategies.typiclust_algorithm import typiclust


def select(candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
    """In turn from each cluster its most typical row; scores are typicalities, 0 among duplicates."""
    batch = typiclust(features=candidates.features, labelled=candidates.labelled, budget=budget, seed=seed)
    return SetBatch(batch.indices, finite(batch.typicality))
