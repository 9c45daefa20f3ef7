"""What a caller wants selected, whatever the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from topb_scorer.bundle import Bundle
from topb_scorer.errors import InvalidRequestError, LimitExceededError
from topb_scorer.strategies import DEFAULT_STRATEGY, Plan, planned, served_by

MAX_BUDGET = 1_000_000


@dataclass(frozen=True)
class SelectionSpec:
    """What to select.

    Raises:
        InvalidRequestError: a field is out of its range, or names what is not there.
        LimitExceededError: the budget is over MAX_BUDGET.
    """

    budget: int
    """b, from 1 to MAX_BUDGET."""
    strategy: str = DEFAULT_STRATEGY
    """Name of a query strategy."""
    seed: int = 0
    """For strategies that draw at random, from 0 to 2⁶⁴ − 1."""
    exclude: frozenset[str] = frozenset()
    """Ids to leave out."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Of the strategy, by name."""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InvalidRequestError(
                f"budget {self.budget}; expected at least 1", reason="BUDGET_NOT_POSITIVE", budget=self.budget
            )
        if self.budget > MAX_BUDGET:
            raise LimitExceededError(
                f"budget {self.budget}; at most {MAX_BUDGET} images are picked at once",
                reason="BUDGET_TOO_LARGE",
                budget=self.budget,
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidRequestError(
                f"seed {self.seed}; expected 0 to 2**64 - 1", reason="SEED_OUT_OF_RANGE", seed=self.seed
            )
        planned(self.strategy, self.options)

    @property
    def plan(self) -> Plan:
        """The strategy with its options."""
        return planned(self.strategy, self.options)


def check_strategy_served(spec: SelectionSpec, bundle: Bundle) -> None:
    """Raises InvalidRequestError unless the model's outputs allow the strategy."""
    allowed = sorted(served_by(bundle.strategies))
    if spec.strategy not in allowed:
        raise InvalidRequestError(
            f"model {bundle.model_id} cannot serve strategy {spec.strategy!r}; "
            f"it can serve {', '.join(allowed)}",
            reason="STRATEGY_NOT_SERVED",
            strategy=spec.strategy,
            model=bundle.model_id,
        )
