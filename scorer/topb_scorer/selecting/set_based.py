"""Select with a set-based strategy: gather the candidates' features from a feature log, then pick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topb.results import Accounts
from topb_scorer.cancellation import Check
from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.selecting.excluded import ExcludedImages
from topb_scorer.selecting.kept_features import KeptFeatures
from topb_scorer.selecting.ledger import Ledger
from topb_scorer.selecting.ranking import CandidateColumns, Picked, TopB
from topb_scorer.selecting.set_memory import SetMemory
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import SetBasedStrategy, SetCandidates


def select_set_based(
    strategy: SetBasedStrategy,
    spec: SelectionSpec,
    log: Iterable[ScoredRows],
    kept: KeptFeatures,
    labelled: Mapping[str, bytes],
    labelled_features: NDArray[np.float32],
    *,
    memory: SetMemory,
    rows: int,
    scratch: Path,
    search_device: str,
    check: Check,
) -> Picked:
    """Return the strategy's picks and the accounts. The order of the rows in the log has no effect.

    Images that the request excludes count as labelled if they are in the pool.

    Args:
        strategy, spec, labelled, rows, scratch: as for `select_pointwise`.
        log: all rows, one part for each shard.
        kept: the features of the rows, for the same shards in the same order.
        labelled_features: float32 (L, D), features of the images that the model was trained on.
        memory: the memory that the selection may take.
        search_device: the device for searches.
        check: called between the steps of the strategy.

    Raises:
        LimitExceededError: with reason FEATURES_OVER_LIMIT.
        AlteredShardError: a shard of the feature log is missing, incomplete or altered.
        ScorerError: the strategy failed.
        SelectionCancelledError: `check` raised it.
    """
    candidates, excluded, accounts, sizes = _read(strategy, spec, log, labelled, memory, rows, scratch)
    if not len(candidates):
        return Picked((), accounts)
    gathered = _gathered(
        strategy, kept, sizes, candidates, excluded, labelled_features, memory, search_device
    )
    budget = min(spec.budget, len(candidates))
    batch = strategy.select(gathered, budget=budget, seed=spec.seed, check=check)
    radii = [None] * len(batch.indices) if batch.radii is None else batch.radii.tolist()
    picked = zip(candidates.rows(batch.indices), batch.scores.tolist(), radii, strict=True)
    picks = (row.pick(rank, score, radius) for rank, (row, score, radius) in enumerate(picked, 1))
    return Picked(tuple(picks), accounts, batch.measures)


def _read(
    strategy: SetBasedStrategy,
    spec: SelectionSpec,
    log: Iterable[ScoredRows],
    labelled: Mapping[str, bytes],
    memory: SetMemory,
    rows: int,
    scratch: Path,
) -> tuple[CandidateColumns, CandidateColumns, Accounts, list[int]]:
    """Return the candidates, the excluded rows whose features count as labelled, the accounts, and the number
    of rows of each part.

    Both are sorted by id, with one row per id. The candidates are the shortlist, or else the whole pool.
    """
    shortlist = strategy.shortlist
    top = TopB(None if shortlist is None else shortlist.candidates_per_pick * spec.budget)
    left_out = TopB(None)
    sizes = []
    with closing(Ledger(ExcludedImages(spec.exclude), ExcludedImages(labelled), scratch, rows)) as ledger:
        for part in log:
            sizes.append(len(part.ids))
            rankable, excluded = ledger.take(part)
            scores = np.zeros(len(part.ids))
            if not strategy.uses_labelled:
                excluded = excluded[:0]
            left_out.offer(part, excluded, scores[excluded])
            if shortlist is not None:
                scores = shortlist.strategy.acquisition(part, seed=spec.seed)
            top.offer(part, rankable, scores[rankable])
            memory.check(0, 0, top.nbytes + left_out.nbytes)
        accounts = ledger.accounts()
    return top.by_id(), left_out.by_id(), accounts, sizes


def _gathered(
    strategy: SetBasedStrategy,
    kept: KeptFeatures,
    sizes: Sequence[int],
    candidates: CandidateColumns,
    excluded: CandidateColumns,
    labelled_features: NDArray[np.float32],
    memory: SetMemory,
    search_device: str,
) -> SetCandidates:
    """Read the features of candidates and excluded rows, and the candidates' probabilities if needed."""
    known = labelled_features if strategy.uses_labelled else labelled_features[:0]
    memory.check(len(candidates), len(known) + len(excluded), candidates.nbytes + excluded.nbytes)
    width = labelled_features.shape[1]
    classes = memory.classes if "probabilities" in strategy.needs else 0
    features = np.zeros((len(candidates), width), np.float32)
    probabilities = np.zeros((len(candidates), classes), np.float32)
    labelled = np.concatenate([known, np.zeros((len(excluded), width), np.float32)])
    find_candidates, find_excluded = _Finder(candidates), _Finder(excluded)
    stop = 0
    for shard, size in enumerate(sizes):
        start, stop = stop, stop + size
        if not any(len(find(start, stop)[0]) for find in (find_candidates, find_excluded)):
            continue
        for outputs in kept.batches(shard):
            of_batch = outputs["features"]
            end = start + len(of_batch)
            targets, rows = find_candidates(start, end)
            features[targets] = of_batch[rows]
            if classes and len(rows):
                probabilities[targets] = kept.probabilities(outputs)[rows]
            targets, rows = find_excluded(start, end)
            labelled[len(known) + targets] = of_batch[rows]
            start = end
    return SetCandidates(
        features=features,
        labelled=labelled,
        probabilities=probabilities,
        scores=candidates.scores,
        search_device=search_device,
    )


class _Finder:
    """Finds candidates by the positions of their rows."""

    def __init__(self, candidates: CandidateColumns) -> None:
        positions = candidates.positions
        self._order = np.argsort(positions)
        self._positions = positions[self._order]

    def __call__(self, start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Return which candidates are between two positions, and how far they are from the first."""
        first, end = np.searchsorted(self._positions, [start, stop])
        return self._order[first:end], self._positions[first:end] - start
