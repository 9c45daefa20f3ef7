"""ProbCover: cover as much of the pool as possible with balls of a fixed radius. Suited to small budgets.

Yehuda, Dekel, Hacohen and Weinshall, Active learning through a covering lens (NeurIPS 2022), algorithm 1 and
section 3.2. The greedy picks cover at least 1 − 1/e times as many rows as the best possible batch (Nemhauser,
Wolsey and Fisher, 1978).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check, checked, never_cancelled
from topb_scorer.errors import LimitExceededError
from topb_scorer.geometry.euclidean import Features, Frame, Indices, Placed, blocks, squared_distances
from topb_scorer.strategies.options import option
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates

_PURITY = 0.95
_SAMPLE = 1000


@dataclass(frozen=True)
class ProbCover(SetBasedStrategy):
    """Repeatedly pick the image that covers the most images that are not covered yet."""

    name = "prob_cover"
    needs = frozenset({"features", "probabilities"})

    radius: float | None = option(
        "The Euclidean radius of a ball, in units of the features. The default is the largest radius at "
        "which 95 % of the balls contain a single predicted class.",
        least=0.0,
        default=None,
    )
    max_pairs: int = 200_000_000
    """The maximum number of pairs of rows within the radius to hold in memory, at up to 8 bytes each."""

    def select(
        self, candidates: SetCandidates, *, budget: int, seed: int, check: Check = never_cancelled
    ) -> SetBatch:
        """Return `budget` rows. The score of a pick is the number of rows that it newly covers.

        Ties go to the lowest index. Rows within the radius of a labelled row are covered from the start. When
        all rows are covered, the remaining rows with the lowest indices are picked with score 0. All N²
        distances are computed in blocks, so twice the pool takes four times as long.

        Raises:
            LimitExceededError: with reason PAIRS_OVER_LIMIT.
        """
        features = candidates.features
        radius = self.radius
        if radius is None:
            classes = candidates.probabilities.argmax(axis=1)
            radius = largest_pure_radius(features=features, classes=classes, seed=seed, check=check)
        starts, neighbours = _pairs_within(radius, features, self.max_pairs, check)
        covered = _near_any(radius, features, candidates.labelled, check)
        gains = np.diff(starts)
        _cover(np.flatnonzero(covered), gains, starts, neighbours, check)
        picks: list[int] = []
        gained: list[int] = []
        while len(picks) < budget:
            check()
            pick = int(gains.argmax())
            if gains[pick] == 0:
                rest = np.setdiff1d(np.arange(len(features)), picks)[: budget - len(picks)]
                picks += rest.tolist()
                gained += [0] * len(rest)
                break
            near = neighbours[starts[pick] : starts[pick + 1]]
            newly = near[~covered[near]]
            picks.append(pick)
            gained.append(len(newly))
            covered[newly] = True
            _cover(newly, gains, starts, neighbours, check)
        return SetBatch(
            np.array(picks, np.int64),
            np.array(gained, np.float64),
            measures={"ball_radius": radius, "covered_share": int(covered.sum()) / len(features)},
        )


def largest_pure_radius(
    *,
    features: Features,
    classes: NDArray[np.integer],
    purity: float = _PURITY,
    seed: int = 0,
    check: Check = never_cancelled,
) -> float:
    """Return the largest radius at which a fraction `purity` of the balls contain a single class.

    A ball is pure up to the distance of the nearest row of another class. The radius is a quantile of this
    distance over a sample of 1000 rows, reduced by one part in a million so that the nearest row stays
    outside. If there is only one class, the radius is the distance from a sampled row to the farthest row.

    Args:
        features: float32 (N, D), finite, N ≥ 1.
        classes: integer (N,), predicted classes. The paper uses clusters instead.
        purity: the fraction, from 0 to 1.
        seed: the seed for drawing the sample.
        check: called before each block of rows.
    """
    size = len(features)
    sample = np.sort(np.random.default_rng(seed).permutation(size)[:_SAMPLE])
    frame = Frame.around(features)
    to_others = np.full(len(sample), np.inf)
    farthest = 0.0
    centres = frame.place(features[sample])
    for block in blocks(size):
        placed, block_classes = frame.place(features[block]), classes[block]
        for other in np.unique(block_classes):
            rows = np.flatnonzero(block_classes == other)
            of_another = np.flatnonzero(classes[sample] != other)
            nearest = to_others[of_another]
            frame.nearer(centres.take(of_another), placed.take(rows), nearest, check)
            to_others[of_another] = nearest
        farthest = max(farthest, float(squared_distances(placed.rows, features[sample[:1]]).max()))
    if np.isinf(to_others).all():
        return float(np.sqrt(farthest))
    quantile = float(np.quantile(to_others, 1 - purity, method="lower"))
    return float(np.sqrt(quantile) * (1 - 1e-6))


def _cover(
    newly: NDArray[np.integer],
    gains: Indices,
    starts: Indices,
    neighbours: NDArray[np.int32],
    check: Check,
) -> None:
    """Decrease the gains of all rows that would have covered the newly covered rows."""
    for row in checked(newly, check):
        gains[neighbours[starts[row] : starts[row + 1]]] -= 1


def _pairs_within(
    radius: float, features: Features, max_pairs: int, check: Check
) -> tuple[Indices, NDArray[np.int32]]:
    """Return the neighbour graph of algorithm 1: starts, int64 (N + 1,), and neighbours, int32 (pairs,).

    The rows within `radius` of row i, including i, are neighbours[starts[i] : starts[i + 1]].
    """
    frame = Frame.around(features)
    counts = [np.zeros(1, np.int64)]
    found: list[NDArray[np.int32]] = []
    held = 0
    for block in blocks(len(features)):
        candidates = frame.place(features[block])
        rows, columns = [], []
        for other in blocks(len(features)):
            i, k = _within(radius, frame, candidates, frame.place(features[other]), check)
            rows.append(i)
            columns.append((other.start + k).astype(np.int32))
            held += len(i)
            if held > max_pairs:
                raise LimitExceededError(
                    f"more than {max_pairs} pairs of rows are within {radius} of each other; "
                    "choose a smaller radius",
                    reason="PAIRS_OVER_LIMIT",
                    radius=radius,
                    limit=max_pairs,
                )
        by_row = np.concatenate(rows)
        found.append(np.concatenate(columns)[np.argsort(by_row, kind="stable")])
        counts.append(np.bincount(by_row, minlength=len(candidates.rows)))
    return np.cumsum(np.concatenate(counts)), np.concatenate(found)


def _near_any(radius: float, features: Features, labelled: Features, check: Check) -> NDArray[np.bool_]:
    """Return whether each row is within `radius` of a labelled row, bool (N,)."""
    near = np.zeros(len(features), np.bool_)
    frame = Frame.around(features, labelled)
    for block in blocks(len(features)):
        candidates = frame.place(features[block])
        for other in blocks(len(labelled)):
            i, _ = _within(radius, frame, candidates, frame.place(labelled[other]), check)
            near[block.start + i] = True
    return near


def _within(
    radius: float, frame: Frame, candidates: Placed, centres: Placed, check: Check
) -> tuple[Indices, Indices]:
    """Return all pairs of a candidate i and a centre k within `radius` of each other, sorted by i."""
    check()
    products, offsets = frame.lower_bounds(candidates, centres)
    limits = (radius * frame.scale) ** 2 - offsets
    surely = limits - frame.uncertainty(candidates, centres)
    rows, columns = np.nonzero(products <= np.nextafter(limits.astype(products.dtype), np.inf)[:, None])
    inside = products[rows, columns] < surely[rows]
    unsure = np.flatnonzero(~inside)
    for block in checked(blocks(len(unsure)), check):
        pairs = unsure[block]
        squared = squared_distances(candidates.rows[rows[pairs]], centres.rows[columns[pairs]])
        inside[pairs] = squared <= radius**2
    return rows[inside], columns[inside]
