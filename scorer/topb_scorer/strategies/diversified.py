"""Any pointwise strategy, made diverse: of its best candidates those that lie far apart."""

from __future__ import annotations

from dataclasses import dataclass

from topb_scorer.strategies.diversity_algorithm import diversify
from topb_scorer.strategies.strategy import SetBatch, SetCandidates, finite


@dataclass(frozen=True)
class Diversified:
    """K-center greedy among the best-scored."""

    oversampling: int
    """Candidates a pick, at least 1."""
    score_weight: float = 0.0
    """From 0, distance alone, to 1, distance weighted by score."""
    min_distance: float = 0.0
    """No two picks lie within it; at 0, exact duplicates."""

    def __call__(self, candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:  # noqa: ARG002
        """Scores are the pointwise strategy's; the measures say what diversity cost and gained."""
        batch = diversify(
            scores=candidates.scores,
            features=candidates.features,
            labelled=candidates.labelled,
            budget=budget,
            oversampling=self.oversampling,
            score_weight=self.score_weight,
            min_distance=self.min_distance,
        )
        measures = {
            "mean_score": batch.mean_score,
            "mean_score_of_top": batch.mean_score_of_top,
            "radius": batch.radius,
            "radius_of_top": batch.radius_of_top,
            "mean_distance": batch.mean_distance,
            "mean_distance_of_top": batch.mean_distance_of_top,
            "near_duplicates": float(batch.near_duplicates),
        }
        return SetBatch(batch.indices, candidates.scores[batch.indices], finite(batch.distances), measures)
