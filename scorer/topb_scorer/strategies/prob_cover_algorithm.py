"""ProbCover: rows whose neighbourhoods cover as much of the pool as can be; for small budgets.

Yehuda, Dekel, Hacohen and Weinshall, Active learning through a covering lens (NeurIPS 2022), algorithm 1 and
section 3.2. Its greedy choice covers at least 1 − 1/e of what the best batch would (Nemhauser, Wolsey and
Fisher, 1978).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topb_scorer.errors import InvalidRequestError, LimitExceededError
from topb_scorer.geometry.euclidean import (
    ROWS_AT_ONCE,
    Features,
    Frame,
    Indices,
    Placed,
    check_features,
    check_same_width,
    squared_distances,
)
from topb_scorer.geometry.k_center import check_budget
from topb_scorer.strategies.probabilities import check_probabilities

_PURITY = 0.95
_SAMPLE = 1000
DEFAULT_MAX_PAIRS = 200_000_000


@dataclass(frozen=True)
class ProbCoverBatch:
    """What ProbCover picked."""

    indices: Indices
    """int64 (b,): rows of the pool, in pick order."""
    gains: Indices
    """int64 (b,): rows of the pool that each pick covered first. Never rises; at 0 the lowest indices."""
    radius: float
    """Of a neighbourhood: Euclidean, in units of the features."""
    covered: int
    """Rows of the pool that a labelled row or a pick covers."""


def prob_cover(
    *,
    features: Features,
    labelled: Features,
    probabilities: NDArray[np.float32],
    budget: int,
    radius: float | None = None,
    seed: int = 0,
    max_pairs: int = DEFAULT_MAX_PAIRS,
) -> ProbCoverBatch:
    """Returns `budget` rows: each time the one within whose `radius` most rows lie that nothing covers yet.

    Of rows that cover equally many the lowest index is picked. Labelled rows cover what is within their
    radius from the start.

    All N² distances are computed, block by block: twice the pool takes four times as long.

    Args:
        features: float32 (N, D), finite.
        labelled: float32 (L, D), finite; L may be 0.
        probabilities: float32 (N, C), by which the radius is chosen where none is given; see
            `largest_pure_radius`.
        budget: how many rows to pick, 0 to N.
        radius: Euclidean, in units of the features, 0 or more.
        seed: of the sample by which the radius is chosen.
        max_pairs: how many pairs of rows within the radius of each other may be held, 8 bytes each.

    Raises:
        InvalidRequestError: with reason OPTION_OUT_OF_RANGE, PROBABILITIES_SHAPE, PROBABILITIES_OUT_OF_RANGE,
        or as
            `k_center.k_center_greedy`.
        LimitExceededError: with reason PAIRS_OVER_LIMIT; a smaller radius makes fewer pairs.
    """
    check_features(features, "features")
    check_features(labelled, "labelled")
    check_same_width(features, labelled)
    check_probabilities(probabilities, len(features))
    check_budget(budget, len(features))
    if radius is None:
        radius = largest_pure_radius(features=features, classes=probabilities.argmax(axis=1), seed=seed)
    if not 0 <= radius < np.inf:
        raise InvalidRequestError(
            f"the radius is {radius}; expected a finite number, 0 or more",
            reason="OPTION_OUT_OF_RANGE",
            option="radius",
            value=radius,
        )
    if len(features) == 0:
        return ProbCoverBatch(np.empty(0, np.int64), np.empty(0, np.int64), radius, 0)
    starts, neighbours = _pairs_within(radius, features, max_pairs)
    covered = _near_any(radius, features, labelled)
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
    return ProbCoverBatch(np.array(picks, np.int64), np.array(gained, np.int64), radius, int(covered.sum()))


def largest_pure_radius(
    *, features: Features, classes: NDArray[np.integer], purity: float = _PURITY, seed: int = 0
) -> float:
    """Returns the largest radius at which a share `purity` of neighbourhoods hold rows of one class only.

    A neighbourhood is pure up to the distance of the nearest row of another class; the radius is the quantile
    of that over a sample of 1000 rows, less one part in a million, so that it stays out. Where
    there is one class only the radius reaches from one sampled row to the row farthest from it.

    Args:
        features: float32 (N, D), finite, N ≥ 1.
        classes: integer (N,): predicted classes (the paper: clusters).
        purity: between 0 and 1.
        seed: of the sample.
    """
    size = len(features)
    if size == 0:
        return 0.0
    sample = np.sort(np.random.default_rng(seed).permutation(size)[:_SAMPLE])
    frame = Frame.around(features)
    to_others = np.full(len(sample), np.inf)
    farthest = 0.0
    centres = frame.place(features[sample])
    for first in range(0, size, ROWS_AT_ONCE):
        block = frame.place(features[first : first + ROWS_AT_ONCE])
        block_classes = classes[first : first + ROWS_AT_ONCE]
        for other in np.unique(block_classes):
            rows = np.flatnonzero(block_classes == other)
            of_another = np.flatnonzero(classes[sample] != other)
            nearest = to_others[of_another]
            frame.nearer(centres.take(of_another), block.take(rows), nearest)
            to_others[of_another] = nearest
        farthest = max(farthest, float(squared_distances(block.rows, features[sample[:1]]).max()))
    if np.isinf(to_others).all():
        return float(np.sqrt(farthest))
    quantile = float(np.quantile(to_others, 1 - purity, method="lower"))
    return float(np.sqrt(quantile) * (1 - 1e-6))


def _cover(
    newly: NDArray[np.integer], gains: Indices, starts: Indices, neighbours: NDArray[np.int32]
) -> None:
    """Takes the rows that are newly covered off the gains of all that would have covered them."""
    for row in newly:
        gains[neighbours[starts[row] : starts[row + 1]]] -= 1


def _pairs_within(radius: float, features: Features, max_pairs: int) -> tuple[Indices, NDArray[np.int32]]:
    """Returns starts, int64 (N + 1,), and neighbours, int32 (pairs,).

    The rows within `radius` of row i are neighbours[starts[i] : starts[i + 1]], itself among them.
    """
    frame = Frame.around(features)
    counts = [np.zeros(1, np.int64)]
    found: list[NDArray[np.int32]] = []
    held = 0
    for first in range(0, len(features), ROWS_AT_ONCE):
        candidates = frame.place(features[first : first + ROWS_AT_ONCE])
        rows, columns = [], []
        for start in range(0, len(features), ROWS_AT_ONCE):
            i, k = _within(radius, frame, candidates, frame.place(features[start : start + ROWS_AT_ONCE]))
            rows.append(i)
            columns.append((start + k).astype(np.int32))
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
    near = np.zeros(len(features), np.bool_)
    frame = Frame.around(features, labelled)
    for first in range(0, len(features), ROWS_AT_ONCE):
        candidates = frame.place(features[first : first + ROWS_AT_ONCE])
        for start in range(0, len(labelled), ROWS_AT_ONCE):
            i, _ = _within(radius, frame, candidates, frame.place(labelled[start : start + ROWS_AT_ONCE]))
            near[first + i] = True
    return near


def _within(radius: float, frame: Frame, candidates: Placed, centres: Placed) -> tuple[Indices, Indices]:
    """Returns the pairs (i, k), by i, of rows that `squared_distances` finds within `radius`."""
    products, offsets = frame.lower_bounds(candidates, centres)
    limits = (radius * frame.scale) ** 2 - offsets
    surely = limits - frame.uncertainty(candidates, centres)
    rows, columns = np.nonzero(products <= np.nextafter(limits.astype(products.dtype), np.inf)[:, None])
    inside = products[rows, columns] < surely[rows]
    unsure = np.flatnonzero(~inside)
    for first in range(0, len(unsure), ROWS_AT_ONCE):
        pairs = unsure[first : first + ROWS_AT_ONCE]
        squared = squared_distances(candidates.rows[rows[pairs]], centres.rows[columns[pairs]])
        inside[pairs] = squared <= radius**2
    return rows[inside], columns[inside]
