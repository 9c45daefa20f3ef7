"""ProbCover: cover the most with balls of one radius.

Yehuda, Dekel, Hacohen and Weinshall, Active learning through a covering lens, NeurIPS 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topb_scorer.strategies.prob_cover_algorithm import prob_cover
from topb_scorer.strategies.strategy import SetBatch, SetCandidates


@dataclass(frozen=True)
class ProbCover:
    """The strategy with its option."""

    radius: float | None = None
    """Euclidean, in units of the features; None: the largest at which predicted classes hardly mix."""

    def __call__(self, candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
        """Each time the row that covers most rows anew; scores are how many."""
        batch = prob_cover(
            features=candidates.features,
            labelled=candidates.labelled,
            probabilities=candidates.probabilities,
            budget=budget,
            radius=self.radius,
            seed=seed,
        )
        measures = {"ball_radius": batch.radius, "covered_share": batch.covered / len(candidates.features)}
        return SetBatch(batch.indices, batch.gains.astype(np.float64), measures=measures)
