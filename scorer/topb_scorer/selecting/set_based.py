"""Set-based selection over a score log: gather the features of the candidates, then let the strategy pick."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topb.results import Accounts, Pick
from topb_scorer.errors import LimitExceededError
from topb_scorer.scoring.score_log import ScoredRows
from topb_scorer.selecting.ledger import Ledger
from topb_scorer.selecting.ranking import Candidate, TopB
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies.strategy import SetBatch, SetCandidates

ReadLog = Callable[[], Iterator[ScoredRows]]


def check_fits(rows: int, width: int, max_bytes: int) -> None:
    """Raises LimitExceededError unless so many rows of so many numbers fit into so many bytes."""
    if rows * width * 4 > max_bytes:
        raise LimitExceededError(
            f"a set-based strategy holds the features of all candidates: {rows} rows of {width} float32 take "
            f"{rows * width * 4 / 2**30:.1f} GiB, the limit is {max_bytes / 2**30:.1f} GiB; diversify a "
            "pointwise strategy, or split the pool",
            reason="FEATURES_OVER_LIMIT",
            rows=rows,
            width=width,
        )


def select_set_from_log(
    spec: SelectionSpec,
    read_log: ReadLog,
    labelled: NDArray[np.float32],
    *,
    rows: int,
    scratch: Path,
    max_bytes: int,
    search_device: str = "cpu",
) -> tuple[tuple[Pick, ...], Accounts, Mapping[str, float]]:
    """Picks, accounts, and what the strategy says of the batch: a function of the log's rows and the spec.

    Images to leave out count as labelled where the log holds their features.

    Args:
        spec: what to select; its strategy needs features.
        read_log: reads the rows from the start, in parts, with features; called twice.
        labelled: float32 (L, D) of the images that the model was trained on.
        rows: about how many rows there are in all.
        scratch: a directory for what is spilled meanwhile.
        max_bytes: of features and probabilities that are held.
        search_device: where FAISS searches.

    Raises:
        LimitExceededError: they are more.
    """
    plan = spec.plan
    assert plan.set_based is not None
    with Ledger(spec.exclude, scratch, rows) as ledger:
        candidates = _candidates(spec, read_log, ledger)
        accounts = ledger.accounts()
    if not candidates:
        return (), accounts, {}
    gathered = _gathered(spec, read_log, candidates, labelled, max_bytes, search_device)
    batch = plan.set_based(gathered, budget=min(spec.budget, len(candidates)), seed=spec.seed)
    return tuple(_picks(candidates, batch)), accounts, batch.measures


def _candidates(spec: SelectionSpec, read_log: ReadLog, ledger: Ledger) -> list[Candidate]:
    """The rows to pick from, one an id, in the order of ids: all, or the best of a pointwise strategy."""
    plan = spec.plan
    if plan.pointwise is not None:
        top = TopB(plan.candidates_a_pick * spec.budget)
        for part in read_log():
            rows = ledger.take(part)
            scores = plan.pointwise(part, seed=spec.seed)[rows]
            ids = [part.ids[row] for row in rows.tolist()]
            top.offer(ids, scores, part.predicted_class[rows], part.confidence[rows], part.entropy[rows])
        return sorted(top.ranked(), key=_id)
    first_of_id: dict[str, Candidate] = {}
    for part in read_log():
        for row in ledger.take(part).tolist():
            candidate = _candidate(part, row, 0.0)
            stands = first_of_id.get(candidate.id)
            if stands is None or candidate < stands:
                first_of_id[candidate.id] = candidate
    return sorted(first_of_id.values(), key=_id)


def _gathered(
    spec: SelectionSpec,
    read_log: ReadLog,
    candidates: list[Candidate],
    labelled: NDArray[np.float32],
    max_bytes: int,
    search_device: str,
) -> SetCandidates:
    at = {candidate.id: i for i, candidate in enumerate(candidates)}
    plan = spec.plan
    features = probabilities = None
    excluded: list[tuple[str, bytes]] = []
    for part in read_log():
        if not part.ids:
            continue
        assert part.features is not None
        assert part.probabilities is not None
        if features is None:
            classes = part.probabilities.shape[1] if plan.needs_probabilities else 0
            check_fits(len(candidates), part.features.shape[1] + classes, max_bytes)
            features = np.zeros((len(candidates), part.features.shape[1]), np.float32)
            probabilities = np.zeros((len(candidates), classes), np.float32)
        assert probabilities is not None
        scores = None if plan.pointwise is None else plan.pointwise(part, seed=spec.seed)
        for row, id_ in enumerate(part.ids):
            if row in part.skips:
                continue
            if id_ in spec.exclude:
                excluded.append((id_, part.features[row].tobytes()))
                continue
            i = at.get(id_)
            # Of rows with one id, the one that became the candidate.
            if (
                i is None
                or _candidate(part, row, 0.0 if scores is None else float(scores[row])) != candidates[i]
            ):
                continue
            features[i] = part.features[row]
            probabilities[i] = part.probabilities[row, : probabilities.shape[1]]
    assert features is not None
    assert probabilities is not None
    return SetCandidates(
        features=features,
        labelled=np.concatenate([labelled, _rows(excluded, features.shape[1])]),
        probabilities=probabilities,
        scores=np.array([-candidate.negative_score + 0.0 for candidate in candidates]),
        search_device=search_device,
    )


def _rows(rows: list[tuple[str, bytes]], width: int) -> NDArray[np.float32]:
    """The features of these ids, float32 (n, width), in the order of ids: k-means sees the order of rows."""
    flat = np.frombuffer(b"".join(features for _, features in sorted(rows)), np.float32)
    return flat.reshape(-1, width)


def _candidate(part: ScoredRows, row: int, score: float) -> Candidate:
    return Candidate(
        -score,
        part.ids[row],
        int(part.predicted_class[row]),
        float(part.confidence[row]),
        float(part.entropy[row]),
    )


def _id(candidate: Candidate) -> str:
    return candidate.id


def _picks(candidates: list[Candidate], batch: SetBatch) -> Iterator[Pick]:
    radii = [None] * len(batch.indices) if batch.radii is None else batch.radii.tolist()
    for rank, (i, score, radius) in enumerate(
        zip(batch.indices.tolist(), batch.scores.tolist(), radii, strict=True), 1
    ):
        candidate = candidates[i]
        yield Pick(
            id=candidate.id,
            rank=rank,
            score=score,
            predicted_class=candidate.predicted_class,
            probability=candidate.probability,
            entropy=candidate.entropy,
            radius=radius,
        )
