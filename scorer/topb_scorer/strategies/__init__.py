"""Query strategies: one file each, listed in one registry."""

from topb_scorer.strategies.registry import DEFAULT_STRATEGY, names, pointwise
from topb_scorer.strategies.strategy import PointwiseStrategy

__all__ = ["DEFAULT_STRATEGY", "PointwiseStrategy", "names", "pointwise"]
