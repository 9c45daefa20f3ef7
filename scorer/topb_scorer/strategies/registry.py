"""Every query strategy by name."""

from __future__ import annotations

from topb_scorer.errors import InvalidRequestError
from topb_scorer.strategies import aalu, entropy, least_confidence, margin, random
from topb_scorer.strategies.strategy import PointwiseStrategy

DEFAULT_STRATEGY = "aalu"

_POINTWISE: dict[str, PointwiseStrategy] = {
    "aalu": aalu.acquisition,
    "entropy": entropy.acquisition,
    "least_confidence": least_confidence.acquisition,
    "margin": margin.acquisition,
    "random": random.acquisition,
}


def names() -> tuple[str, ...]:
    """All strategies, by name."""
    return tuple(sorted(_POINTWISE))


def pointwise(name: str) -> PointwiseStrategy:
    """The pointwise strategy of that name.

    Raises:
        InvalidRequestError: there is none.
    """
    if name not in _POINTWISE:
        raise InvalidRequestError(
            f"there is no strategy {name!r}; there are {', '.join(names())}",
            reason="STRATEGY_UNKNOWN",
            strategy=name,
        )
    return _POINTWISE[name]
