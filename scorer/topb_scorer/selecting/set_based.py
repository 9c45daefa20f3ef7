"""Select with a set-based strategy: gather the candidates' features from a score log, then pick."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topb_scorer.cancellation import Check
from topb_scorer.errors import LimitExceededError
from topb_scorer.scoring.score_log import FeatureRows
from topb_scorer.selecting.excluded import ExcludedImages
from topb_scorer.selecting.ledger import Ledger
from topb_scorer.selecting.ranking import Candidate, Picked, TopB
from topb_scorer.selecting.settings import SelectingSettings
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import SetBasedStrategy, SetCandidates

ReadLog = Callable[[], Iterator[FeatureRows]]


def check_fits(rows: int, width: int, max_bytes: int) -> None:
    """Raise LimitExceededError if `rows` × `width` float32 take more than `max_bytes`."""
    if rows * width * 4 > max_bytes:
        raise LimitExceededError(
            f"a set-based strategy holds the features of all candidates in memory: {rows} rows of {width} "
            f"float32 take {rows * width * 4 / 2**30:.1f} GiB, the limit is {max_bytes / 2**30:.1f} GiB; "
            "use a pointwise strategy with the option diversify, or split the pool",
            reason="FEATURES_OVER_LIMIT",
            rows=rows,
            width=width,
        )


def select_set_based(
    strategy: SetBasedStrategy,
    spec: SelectionSpec,
    read_log: ReadLog,
    labelled: Mapping[str, bytes],
    labelled_features: NDArray[np.float32],
    *,
    classes: int,
    rows: int,
    scratch: Path,
    settings: SelectingSettings,
    check: Check,
) -> Picked:
    """Return the strategy's picks and the accounts. The order of the rows in the log has no effect.

    Images that the request excludes count as labelled if the log holds their features.

    Args:
        strategy, spec, labelled, rows, scratch: as for `select_pointwise`.
        read_log: returns an iterator over all rows, in parts. It is called twice.
        labelled_features: float32 (L, D), features of the images that the model was trained on.
        classes: C, the number of classes that the model predicts.
        settings: the memory limit and the device for searches.
        check: called between the steps of the strategy.

    Raises:
        LimitExceededError: with reason FEATURES_OVER_LIMIT.
        ScorerError: the strategy failed.
        SelectionCancelledError: `check` raised it.
    """
    with closing(Ledger(ExcludedImages(spec.exclude), ExcludedImages(labelled), scratch, rows)) as ledger:
        candidates = _candidates(strategy, spec, read_log, ledger)
        accounts = ledger.accounts()
    if not candidates:
        return Picked((), accounts)
    classes = classes if "probabilities" in strategy.needs else 0
    gathered = _gathered(strategy, spec, read_log, candidates, labelled, labelled_features, classes, settings)
    budget = min(spec.budget, len(candidates))
    batch = strategy.select(gathered, budget=budget, seed=spec.seed, check=check)
    radii = [None] * len(batch.indices) if batch.radii is None else batch.radii.tolist()
    picks = (
        candidates[i].pick(rank, score, radius)
        for rank, (i, score, radius) in enumerate(
            zip(batch.indices.tolist(), batch.scores.tolist(), radii, strict=True), 1
        )
    )
    return Picked(tuple(picks), accounts, batch.measures)


def _candidates(
    strategy: SetBasedStrategy, spec: SelectionSpec, read_log: ReadLog, ledger: Ledger
) -> list[Candidate]:
    """Return the candidates, sorted by id and one per id: the shortlist, or else the whole pool."""
    shortlist = strategy.shortlist
    if shortlist is not None:
        top = TopB(shortlist.candidates_per_pick * spec.budget)
        for part in read_log():
            rows = ledger.take(part)
            top.offer(part, rows, shortlist.strategy.acquisition(part, seed=spec.seed)[rows])
        return sorted(top.ranked(), key=attrgetter("id"))
    first_of_id: dict[str, Candidate] = {}
    for part in read_log():
        for row in ledger.take(part).tolist():
            candidate = Candidate.of(part, row, 0.0)
            known = first_of_id.get(candidate.id)
            if known is None or candidate < known:
                first_of_id[candidate.id] = candidate
    return [first_of_id[id_] for id_ in sorted(first_of_id)]


def _gathered(
    strategy: SetBasedStrategy,
    spec: SelectionSpec,
    read_log: ReadLog,
    candidates: list[Candidate],
    labelled: Mapping[str, bytes],
    labelled_features: NDArray[np.float32],
    classes: int,
    settings: SelectingSettings,
) -> SetCandidates:
    """Read the candidates' features, and the first `classes` columns of their probabilities."""
    width = labelled_features.shape[1]
    check_fits(len(candidates), width + classes, settings.max_set_bytes)
    features = np.zeros((len(candidates), width), np.float32)
    probabilities = np.zeros((len(candidates), classes), np.float32)
    excluded_images, labelled_images = ExcludedImages(spec.exclude), ExcludedImages(labelled)
    excluded: list[tuple[str, bytes]] = []
    index_of = {candidate.id: i for i, candidate in enumerate(candidates)}
    shortlist = strategy.shortlist
    for part in read_log():
        scores = (
            np.zeros(len(part.ids))
            if shortlist is None
            else shortlist.strategy.acquisition(part, seed=spec.seed)
        )
        is_labelled = labelled_images.among(part)
        is_excluded = excluded_images.among(part) & ~is_labelled
        for row, id_ in enumerate(part.ids):
            # The features of labelled images are in the bundle.
            if row in part.skips or is_labelled[row]:
                continue
            if is_excluded[row]:
                excluded.append((id_, part.features[row].tobytes()))
                continue
            i = index_of.get(id_)
            # If several rows have the same id, only one of them is the candidate.
            if i is not None and Candidate.of(part, row, float(scores[row])) == candidates[i]:
                features[i] = part.features[row]
                probabilities[i] = part.probabilities[row, :classes]
    return SetCandidates(
        features=features,
        labelled=np.concatenate([labelled_features, _excluded_features(excluded, width)]),
        probabilities=probabilities,
        scores=np.array([candidate.score for candidate in candidates]),
        search_device=settings.search_device,
    )


def _excluded_features(rows: list[tuple[str, bytes]], width: int) -> NDArray[np.float32]:
    """Return float32 (n, width), sorted by id because k-means depends on the order of rows."""
    flat = np.frombuffer(b"".join(features for _, features in sorted(rows)), np.float32)
    return flat.reshape(-1, width)
