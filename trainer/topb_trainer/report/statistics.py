"""Means, standard deviations and confidence intervals over a handful of seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """The summary of n values."""

    mean: float
    deviation: float | None
    """Standard deviation of the sample, with n − 1 degrees of freedom; None for a single value."""
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the width of the mean's confidence interval by Student's t; None for a single value."""
        if self.deviation is None:
            return None
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1))
        return quantile * self.deviation / math.sqrt(self.n)


def summary_of(values: Sequence[float]) -> Summary | None:
    """Return the mean, standard deviation and number of the values, or None if there are no values."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), deviation, len(values))


def crossing(labels: Sequence[float], accuracies: Sequence[float], goal: float) -> float | None:
    """Return the number of labels at which a curve first reaches a goal; None if it never does.

    Args:
        labels: (n), ascending numbers of labels.
        accuracies: (n), the accuracy at each; the curve is linear in between.
        goal: an accuracy.
    """
    if accuracies[0] >= goal:
        return labels[0]
    for i in range(1, len(labels)):
        if accuracies[i] >= goal:
            rise = (goal - accuracies[i - 1]) / (accuracies[i] - accuracies[i - 1])
            return labels[i - 1] + rise * (labels[i] - labels[i - 1])
    return None
