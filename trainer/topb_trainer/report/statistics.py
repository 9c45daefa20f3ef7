"""Means, deviations and confidence intervals of a handful of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95

_STEPS = 2000


@dataclass(frozen=True)
class Summary:
    """What n values come to."""

    mean: float
    deviation: float | None
    """Of the sample (n − 1); None of a single value."""
    n: int

    @property
    def half_width(self) -> float | None:
        """Of the mean's confidence interval by Student's t; None of a single value."""
        if self.deviation is None:
            return None
        return t_quantile(self.n - 1) * self.deviation / math.sqrt(self.n)


def summarised(values: Sequence[float]) -> Summary:
    """Returns mean, deviation and count of at least one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(mean, None, 1)
    return Summary(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)), n)


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Returns t such that Student's distribution of so many degrees of freedom lies within ±t so often."""
    low, high = 0.0, 1.0
    while _within(high, degrees) < confidence:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return (low + high) / 2


def crossing(labels: Sequence[float], accuracies: Sequence[float], goal: float) -> float | None:
    """Returns at how many labels a curve first reaches `goal`, linear between its points; None if never.

    Args:
        labels: (n), ascending.
        accuracies: (n).
        goal: an accuracy.
    """
    if accuracies[0] >= goal:
        return labels[0]
    for i in range(1, len(labels)):
        if accuracies[i] >= goal:
            rise = (goal - accuracies[i - 1]) / (accuracies[i] - accuracies[i - 1])
            return labels[i - 1] + rise * (labels[i] - labels[i - 1])
    return None


def _within(t: float, degrees: int) -> float:
    """How often Student's t lies within ±t: Simpson's rule on the density, with t = √ν tan θ.

    With that substitution the density is c cos^(ν−1) θ, smooth over a bounded range for any t.
    """
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    end = math.atan(t / math.sqrt(degrees))
    step = end / _STEPS
    total = math.fsum(
        (1 if i in {0, _STEPS} else 4 if i % 2 else 2) * math.cos(i * step) ** (degrees - 1)
        for i in range(_STEPS + 1)
    )
    return 2 * scale * total * step / 3
