"""Query strategies: one file for each, and a registry that collects them."""

from topb_scorer.strategies.registry import configured, names, served_by
from topb_scorer.strategies.strategy import (
    PointwiseStrategy,
    QueryStrategy,
    SetBasedStrategy,
    SetBatch,
    SetCandidates,
    Shortlist,
)

__all__ = [
    "PointwiseStrategy",
    "QueryStrategy",
    "SetBasedStrategy",
    "SetBatch",
    "SetCandidates",
    "Shortlist",
    "configured",
    "names",
    "served_by",
]
