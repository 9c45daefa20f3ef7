"""Pointwise selection exactly as it is defined: one row after the other, a dict and a sort, in float64."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topb_scorer import imaging
from topb_scorer.bundle import Bundle
from topb_scorer.imaging import SkippedImageError
from topb_scorer.scoring.session import ScoringSession

Row = tuple[str | None, bytes | None]


@dataclass(frozen=True)
class RankedRow:
    """One pick."""

    id: str
    score: float
    predicted_class: int
    probability: float
    entropy: float


@dataclass
class ReferenceSelection:
    """The picks in rank order, and the accounts of all rows."""

    picks: list[RankedRow] = field(default_factory=list)
    read: int = 0
    scored: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    duplicate: int = 0
    excluded: int = 0


class ReferenceScorer:
    """Decodes and scores one image at a time."""

    def __init__(self, bundle: Bundle) -> None:
        self._target = bundle.input
        self._session = ScoringSession(bundle.graph, batch_size=2, threads=1)
        self._outputs: dict[bytes, tuple[float, NDArray[np.float64]] | str] = {}

    def outputs_of(self, image: bytes | None) -> tuple[float, NDArray[np.float64]] | str:
        """Return the score and the probabilities (C,), or the reason why the image is skipped."""
        if image is None:
            return "IMAGE_MISSING"
        if image not in self._outputs:
            self._outputs[image] = self._score(image)
        return self._outputs[image]

    def _score(self, image: bytes) -> tuple[float, NDArray[np.float64]] | str:
        try:
            pixels = imaging.load(image, self._target)
        except SkippedImageError as error:
            return error.reason
        outputs = self._session.score(pixels[None])
        score, probabilities = outputs["score"][0], outputs["probabilities"][0]
        if not (np.isfinite(score) and np.isfinite(probabilities).all()):
            return "SCORE_NOT_FINITE"
        return float(score), probabilities.astype(np.float64)


def select(
    rows: Sequence[Row],
    scorer: ReferenceScorer,
    *,
    budget: int,
    strategy: str,
    seed: int,
    exclude: Collection[str],
) -> ReferenceSelection:
    """Return the result that a selection from the rows must have."""
    selection = ReferenceSelection()
    best: dict[str, RankedRow] = {}
    for id_, image in rows:
        selection.read += 1
        outputs = "ID_MISSING" if not id_ else scorer.outputs_of(image)
        if id_ and id_ in exclude:
            selection.excluded += 1
        elif not id_ or isinstance(outputs, str):
            selection.skipped[str(outputs)] += 1
        else:
            row = _ranked_row(id_, *outputs, strategy=strategy, seed=seed)
            if id_ in best:
                selection.duplicate += 1
            else:
                selection.scored += 1
            best[id_] = min(row, best.get(id_, row), key=_order)
    selection.picks = sorted(best.values(), key=_order)[:budget]
    return selection


def acquisition(
    strategy: str, score: float, probabilities: NDArray[np.float64], id_: str, seed: int
) -> float:
    """Return the acquisition score as the strategy's source defines it."""
    first, second, *_ = [*sorted(probabilities.tolist(), reverse=True), 0.0]
    if strategy in {"aalu", "vaal"}:
        return score
    if strategy == "margin":
        return 1.0 - (first - second)
    if strategy == "least_confidence":
        return 1.0 - first
    if strategy == "entropy":
        return entropy(probabilities)
    assert strategy == "random"
    digest = hashlib.blake2b(id_.encode(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return (int.from_bytes(digest, "big") // 2**11) / 2**53


def entropy(probabilities: NDArray[np.float64]) -> float:
    """Return the entropy in nats, with 0 log 0 = 0."""
    total = 0.0
    for probability in probabilities:
        if probability > 0:
            total += float(probability * np.log(probability))
    return 0.0 - total


def _ranked_row(
    id_: str, score: float, probabilities: NDArray[np.float64], *, strategy: str, seed: int
) -> RankedRow:
    return RankedRow(
        id_,
        acquisition(strategy, score, probabilities, id_, seed),
        int(probabilities.argmax()),
        float(probabilities.max()),
        entropy(probabilities),
    )


def _order(row: RankedRow) -> tuple[float, str, int, float, float]:
    return -row.score, row.id, row.predicted_class, row.probability, row.entropy
