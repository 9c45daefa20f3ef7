"""Query strategies: one file each, listed in one registry."""

from topb_scorer.strategies.registry import (
    DEFAULT_STRATEGY,
    names,
    planned,
    pointwise,
    pointwise_names,
    served_by,
)
from topb_scorer.strategies.strategy import Plan, PointwiseStrategy, SetBasedStrategy

__all__ = [
    "DEFAULT_STRATEGY",
    "Plan",
    "PointwiseStrategy",
    "SetBasedStrategy",
    "names",
    "planned",
    "pointwise",
    "pointwise_names",
    "served_by",
]
