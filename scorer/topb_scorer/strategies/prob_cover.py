"""ProbCover: rows whose balls of one radius cover as much of the pool as possible; for small budgets.

Yehuda, Dekel, Hacohen and Weinshall, Active learning through a covering lens (NeurIPS 2022), algorithm 1 and
section 3.2. Its greedy choice covers at least 1 − 1/e of what the best batch would (Nemhauser, Wolsey and
Fisher, 1978).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.errors import LimitExceededError
from topb_scorer.geometry.euclidean import Features, Frame, Indices, Placed, blocks, squared_distances
from topb_scorer.strategies.options import option
from topb_scorer.strategies.strategy import SetBasedStrategy, SetBatch, SetCandidates

_PURITY = 0.95
_SAMPLE = 1000


@dataclass(frozen=True)
class ProbCover(SetBasedStrategy):
    """Pick the image that covers the most images not covered yet, again and again."""

    name = "prob_cover"
    needs = frozenset({"features", "probabilities"})

    radius: float | None = option(
        "The Euclidean radius of a ball, in units of the features. The default is the largest at which 95 % "
        "of the balls hold a single predicted class.",
        least=0.0,
        default=None,
    )
    max_pairs: int = 200_000_000
    """How many pairs of rows within the radius of each other may be held in memory, at most 8 bytes each."""

    def select(self, candidates: SetCandidates, *, budget: int, seed: int) -> SetBatch:
        """Return `budget` rows; scores are how many rows each covers that nothing covered before.

        Ties go to the lowest index. Labelled rows cover what lies within their radius from the start. Once
        everything is covered, the lowest indices follow, with score 0. All N² distances are computed, block
        by block: twice the pool takes four times as long.

        Raises:
            LimitExceededError: with reason PAIRS_OVER_LIMIT.
        """
        features = candidates.features
        radius = self.radius
        if radius is None:
            classes = candidates.probabilities.argmax(axis=1)
            radius = largest_pure_radius(features=features, classes=classes, seed=seed)
        starts, neighbours = _pairs_within(radius, features, self.max_pairs)
        covered = _near_any(radius, features, candidates.labelled)
        gains = np.diff(starts)
        _cover(np.flatnonzero(covered), gains, starts, neighbours)
        picks: list[int] = []
        gained: list[int] = []
        while len(picks) < budget:
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
            _cover(newly, gains, starts, neighbours)
        return SetBatch(
            np.array(picks, np.int64),
            np.array(gained, np.float64),
            measures={"ball_radius": radius, "covered_share": int(covered.sum()) / len(features)},
        )


def largest_pure_radius(
    *, features: Features, classes: NDArray[np.integer], purity: float = _PURITY, seed: int = 0
) -> float:
    """Return the largest radius at which a share `purity` of the balls hold rows of one class only.

    A ball is pure up to the distance of the nearest row of another class. The radius is the quantile of that
    distance over a sample of 1000 rows, reduced by one part in a million so that the nearest row stays
    outside. If there is only one class, the radius reaches from one sampled row to the row farthest from it.

    Args:
        features: float32 (N, D), finite, N ≥ 1.
        classes: integer (N,), predicted classes. The paper takes clusters.
        purity: from 0 to 1.
        seed: draws the sample.
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
            frame.nearer(centres.take(of_another), placed.take(rows), nearest)
            to_others[of_another] = nearest
        farthest = max(farthest, float(squared_distances(placed.rows, features[sample[:1]]).max()))
    if np.isinf(to_others).all():
        return float(np.sqrt(farthest))
    quantile = float(np.quantile(to_others, 1 - purity, method="lower"))
    return float(np.sqrt(quantile) * (1 - 1e-6))


def _cover(
    newly: NDArray[np.integer], gains: Indices, starts: Indices, neighbours: NDArray[np.int32]
) -> None:
    """Subtract the newly covered rows from the gains of all rows that would have covered them."""
    for row in newly:
        gains[neighbours[starts[row] : starts[row + 1]]] -= 1


def _pairs_within(radius: float, features: Features, max_pairs: int) -> tuple[Indices, NDArray[np.int32]]:
    """Return starts, int64 (N + 1,), and neighbours, int32 (pairs,), of the graph of the paper's algorithm 1.

    The rows within `radius` of row i are neighbours[starts[i] : starts[i + 1]]; i is one of them.
    """
    frame = Frame.around(features)
    counts = [np.zeros(1, np.int64)]
    found: list[NDArray[np.int32]] = []
    held = 0
    for block in blocks(len(features)):
        candidates = frame.place(features[block])
        rows, columns = [], []
        for other in blocks(len(features)):
            i, k = _within(radius, frame, candidates, frame.place(features[other]))
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


def _near_any(radius: float, features: Features, labelled: Features) -> NDArray[np.bool_]:
    """Return bool (N,): whether a labelled row lies within `radius` of each row."""
    near = np.zeros(len(features), np.bool_)
    frame = Frame.around(features, labelled)
    for block in blocks(len(features)):
        candidates = frame.place(features[block])
        for other in blocks(len(labelled)):
            i, _ = _within(radius, frame, candidates, frame.place(labelled[other]))
            near[block.start + i] = True
    return near


def _within(radius: float, frame: Frame, candidates: Placed, centres: Placed) -> tuple[Indices, Indices]:
    """Return the pairs (i, k), sorted by i, of a candidate and a centre within `radius` of each other."""
    products, offsets = frame.lower_bounds(candidates, centres)
    limits = (radius * frame.scale) ** 2 - offsets
    surely = limits - frame.uncertainty(candidates, centres)
    rows, columns = np.nonzero(products <= np.nextafter(limits.astype(products.dtype), np.inf)[:, None])
    inside = products[rows, columns] < surely[rows]
    unsure = np.flatnonzero(~inside)
    for block in blocks(len(unsure)):
        pairs = unsure[block]
        squared = squared_distances(candidates.rows[rows[pairs]], centres.rows[columns[pairs]])
        inside[pairs] = squared <= radius**2
    return rows[inside], columns[inside]
