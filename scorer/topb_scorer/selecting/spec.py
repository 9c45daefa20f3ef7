"""Describe what to select, independently of the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from topb_scorer.errors import InvalidRequestError, LimitExceededError
from topb_scorer.strategies import QueryStrategy, SetBasedStrategy, configured

DEFAULT_STRATEGY = "aalu"
MAX_BUDGET = 1_000_000


@dataclass(frozen=True)
class SelectionSpec:
    """A description of what to select.

    Raises:
        InvalidRequestError: with reason BUDGET_NOT_POSITIVE, SEED_OUT_OF_RANGE, STRATEGY_UNKNOWN,
            STRATEGY_OPTION_UNKNOWN or OPTION_OUT_OF_RANGE.
        LimitExceededError: with reason BUDGET_TOO_LARGE.
    """

    budget: int
    """b, from 1 to MAX_BUDGET."""
    strategy: str = DEFAULT_STRATEGY
    """The name of a query strategy."""
    seed: int = 0
    """The seed of strategies that draw at random, from 0 to 2⁶⁴ − 1."""
    exclude: Mapping[str, bytes] = field(default_factory=dict)
    """Images to leave out: the content digest of each by its id, `NO_DIGEST` if it is not known."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The values of the strategy's options by name, as text."""
    include_labelled: bool = False
    """Whether images that the model was trained on may be picked. Otherwise they are excluded."""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InvalidRequestError(
                f"the budget is {self.budget}; expected at least 1",
                reason="BUDGET_NOT_POSITIVE",
                budget=self.budget,
            )
        if self.budget > MAX_BUDGET:
            raise LimitExceededError(
                f"the budget is {self.budget}; expected at most {MAX_BUDGET}",
                reason="BUDGET_TOO_LARGE",
                budget=self.budget,
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidRequestError(
                f"the seed is {self.seed}; expected 0 to 2**64 - 1",
                reason="SEED_OUT_OF_RANGE",
                seed=self.seed,
            )
        # This raises the errors for unknown strategies and options.
        _ = self.query_strategy

    @cached_property
    def query_strategy(self) -> QueryStrategy:
        """The query strategy with its options."""
        return configured(self.strategy, self.options)

    @property
    def needs_features(self) -> bool:
        """Whether the strategy needs a score log with features."""
        return isinstance(self.query_strategy, SetBasedStrategy)
