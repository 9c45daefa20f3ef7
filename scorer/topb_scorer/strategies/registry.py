"""Find query strategies by name.

The strategies are collected from the modules of this package: every class with a `name` is registered.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Collection, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

from topb_scorer.errors import InvalidRequestError
from topb_scorer.strategies.diversity import Diversified
from topb_scorer.strategies.options import options_of, parsed
from topb_scorer.strategies.strategy import PointwiseStrategy, QueryStrategy, SetBasedStrategy


def names() -> tuple[str, ...]:
    """Return the names of all strategies, sorted."""
    return tuple(_strategies())


def configured(name: str, options: Mapping[str, str]) -> QueryStrategy:
    """Return the strategy with the given name and options.

    Pointwise strategies also accept the options of `Diversified`, which make them diversified.

    Args:
        name: one of `names()`.
        options: values by option name, as text.

    Raises:
        InvalidRequestError: with reason STRATEGY_UNKNOWN, STRATEGY_OPTION_UNKNOWN or OPTION_OUT_OF_RANGE.
    """
    strategy_class = _strategies().get(name)
    if strategy_class is None:
        raise InvalidRequestError(
            f"there is no strategy {name!r}; expected one of {', '.join(names())}",
            reason="STRATEGY_UNKNOWN",
            strategy=name,
        )
    own = options_of(strategy_class)
    known = own | options_of(Diversified) if issubclass(strategy_class, PointwiseStrategy) else own
    if unknown := sorted(set(options) - set(known)):
        raise InvalidRequestError(
            f"strategy {name} has no option {unknown[0]!r}; its options are {', '.join(known) or 'none'}",
            reason="STRATEGY_OPTION_UNKNOWN",
            strategy=name,
        )
    strategy = strategy_class(**parsed(strategy_class, name, options))
    if isinstance(strategy, PointwiseStrategy) and set(options) - set(own):
        return Diversified(strategy, **parsed(Diversified, name, options))
    return strategy


def served_by(declared: frozenset[str], outputs: Collection[str]) -> frozenset[str]:
    """Return the names of the strategies that a model can serve.

    Args:
        declared: the strategies that the model's bundle declares. Strategies that use the `score` output are
            served only if they are declared.
        outputs: the names of the model's outputs. A strategy is served only if the model has all it needs.
    """
    return frozenset(
        name
        for name, strategy in _strategies().items()
        if strategy.needs <= set(outputs) and (name in declared or "score" not in strategy.needs)
    )


@cache
def _strategies() -> dict[str, type[QueryStrategy]]:
    found: dict[str, type[QueryStrategy]] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        for _, member in inspect.getmembers(import_module(f"{__package__}.{module.name}"), inspect.isclass):
            if issubclass(member, (PointwiseStrategy, SetBasedStrategy)) and "name" in vars(member):
                found[member.name] = member
    return dict(sorted(found.items()))
