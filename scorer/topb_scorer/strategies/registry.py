"""Every query strategy by name, and its options."""

from __future__ import annotations

import math
from collections.abc import Mapping

from topb_scorer.errors import InvalidRequestError
from topb_scorer.strategies import (
    aalu,
    badge,
    core_set,
    entropy,
    least_confidence,
    margin,
    random,
    typiclust,
    vaal,
)
from topb_scorer.strategies.diversified import Diversified
from topb_scorer.strategies.prob_cover import ProbCover
from topb_scorer.strategies.strategy import Plan, PointwiseStrategy

DEFAULT_STRATEGY = "aalu"

_POINTWISE: dict[str, PointwiseStrategy] = {
    "aalu": aalu.acquisition,
    "entropy": entropy.acquisition,
    "least_confidence": least_confidence.acquisition,
    "margin": margin.acquisition,
    "random": random.acquisition,
    "vaal": vaal.acquisition,
}
_SET_BASED = {
    "badge": Plan(set_based=badge.select, needs_probabilities=True),
    "core_set": Plan(set_based=core_set.select),
    "prob_cover": Plan(set_based=ProbCover(), needs_probabilities=True),
    "typiclust": Plan(set_based=typiclust.select),
}
_DIVERSIFY = ("diversify", "score_weight", "min_distance")
_OPTIONS = dict.fromkeys(_POINTWISE, _DIVERSIFY) | {"prob_cover": ("radius",)}

# By the model's own score, which means what its method says: served only where the model declares it. All
# others are served by any model with probabilities and features.
_BY_THE_MODELS_SCORE = frozenset({"aalu", "vaal"})


def names() -> tuple[str, ...]:
    """All strategies, by name."""
    return tuple(sorted({**_POINTWISE, **_SET_BASED}))


def pointwise_names() -> tuple[str, ...]:
    """The strategies that value each image by itself, by name."""
    return tuple(sorted(_POINTWISE))


def pointwise(name: str) -> PointwiseStrategy:
    """The pointwise strategy of that name.

    Raises:
        InvalidRequestError: there is none.
    """
    plan = planned(name, {})
    if plan.pointwise is None:
        raise InvalidRequestError(
            f"{name} is no pointwise strategy", reason="STRATEGY_UNKNOWN", strategy=name
        )
    return plan.pointwise


def planned(name: str, options: Mapping[str, str]) -> Plan:
    """The strategy of that name with its options.

    Options of the pointwise strategies: `diversify` (candidates a pick, at least 1: k-center greedy among
    them), and with it `score_weight` (0 to 1) and `min_distance` (0 or more). Of prob_cover: `radius`.

    Raises:
        InvalidRequestError: there is no such strategy or option, or an option's value is out of its range.
    """
    if name not in _POINTWISE and name not in _SET_BASED:
        raise InvalidRequestError(
            f"there is no strategy {name!r}; there are {', '.join(names())}",
            reason="STRATEGY_UNKNOWN",
            strategy=name,
        )
    known = _OPTIONS.get(name, ())
    if unknown := sorted(set(options) - set(known)):
        raise InvalidRequestError(
            f"strategy {name} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}",
            reason="STRATEGY_OPTION_UNKNOWN",
            strategy=name,
        )
    if name == "prob_cover" and "radius" in options:
        radius = _number(options, "radius", 0.0, math.inf)
        return Plan(set_based=ProbCover(radius), needs_probabilities=True)
    if name in _SET_BASED:
        return _SET_BASED[name]
    if "diversify" not in options:
        if options:
            raise InvalidRequestError(
                f"{', '.join(sorted(options))} says how to diversify; name `diversify` too",
                reason="STRATEGY_OPTION_UNKNOWN",
                strategy=name,
            )
        return Plan(pointwise=_POINTWISE[name])
    oversampling = _number(options, "diversify", 1.0, 1e6)
    if oversampling != int(oversampling):
        raise _out_of_range("diversify", options["diversify"], "a whole number of candidates a pick")
    diversified = Diversified(
        int(oversampling),
        _number(options, "score_weight", 0.0, 1.0) if "score_weight" in options else 0.0,
        _number(options, "min_distance", 0.0, math.inf) if "min_distance" in options else 0.0,
    )
    return Plan(pointwise=_POINTWISE[name], set_based=diversified, candidates_a_pick=diversified.oversampling)


def served_by(declared: frozenset[str]) -> frozenset[str]:
    """The strategies that a model serves: what it declares, and all that need but its predictions."""
    return frozenset(name for name in names() if name in declared or name not in _BY_THE_MODELS_SCORE)


def _number(options: Mapping[str, str], name: str, least: float, most: float) -> float:
    try:
        value = float(options[name])
    except ValueError:
        value = math.nan
    if not (least <= value <= most and math.isfinite(value)):
        raise _out_of_range(name, options[name], f"a number from {least:g} to {most:g}")
    return value


def _out_of_range(name: str, value: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"option {name} is {value!r}; expected {expected}", reason="OPTION_OUT_OF_RANGE", option=name
    )
