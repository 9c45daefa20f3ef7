"""A simple k-center greedy that computes every distance in every round, as a reference."""

from fractions import Fraction

import numpy as np


def brute_force(pool, labelled, budget, first=None):
    """Return picks and radii, computed in float64. `first` is the first pick if nothing is labelled."""
    pool, labelled = pool.astype(np.float64), labelled.astype(np.float64)
    nearest = np.full(len(pool), np.inf)
    for centre in labelled:
        nearest = np.minimum(nearest, ((pool - centre) ** 2).sum(axis=1))
    picks, radii = [], []
    for _ in range(budget):
        pick = first if len(labelled) == 0 and not picks else int(np.argmax(nearest))
        picks.append(pick)
        radii.append(np.sqrt(nearest[pick]))
        nearest = np.minimum(nearest, ((pool - pool[pick]) ** 2).sum(axis=1))
        nearest[picks] = -1
    return picks, radii


def in_real_arithmetic(pool, labelled, budget, first=None):
    """Return picks and squared radii, computed in fractions. Without rounding, equal distances compare
    equal."""

    def squared_distance(x, y):
        return sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(x, y, strict=True))

    nearest = [min((squared_distance(row, centre) for centre in labelled), default=None) for row in pool]
    picks, radii = [], []
    for _ in range(budget):
        left = [i for i in range(len(pool)) if i not in picks]
        pick = first if not picks and len(labelled) == 0 else max(left, key=lambda i: (nearest[i], -i))
        picks.append(pick)
        radii.append(nearest[pick])
        distances = [squared_distance(row, pool[pick]) for row in pool]
        nearest = [d if n is None else min(n, d) for n, d in zip(nearest, distances, strict=True)]
    return picks, radii
