"""A simple pointwise selection as a reference: one row at a time, a dict and a sort, in float64."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from topb.results import Accounts, Pick
from topb_scorer import imaging
from topb_scorer.bundle import Bundle
from topb_scorer.imaging import SkippedImageError
from topb_scorer.scoring.model_session import ModelSession

Row = tuple[str | None, bytes | None]


class ReferenceScorer:
    """Decodes and scores one image at a time."""

    def __init__(self, bundle: Bundle) -> None:
        self._target = bundle.input
        self._session = ModelSession(bundle, batch_size=2, threads=1)
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
    exclude: Mapping[str, bytes | None],
) -> tuple[tuple[Pick, ...], Accounts]:
    """Return the picks and accounts that a selection must have, without the skipped examples.

    `exclude` has the image to leave out by its id, None if only the id is known. The pool has neither of the
    bundle's two labelled images.
    """
    named = [row for row in rows if row[0]]
    contents = {image for image in exclude.values() if image is not None}
    unmatched = sum(
        all(id_ != excluded_id and (content is None or image != content) for id_, image in named)
        for excluded_id, content in exclude.items()
    )
    skipped: Counter[str] = Counter()
    excluded = duplicate = 0
    best: dict[str, Pick] = {}
    for id_, image in rows:
        outputs = scorer.outputs_of(image) if id_ else "ID_MISSING"
        if id_ and (id_ in exclude or image in contents):
            excluded += 1
        elif not id_ or isinstance(outputs, str):
            skipped[str(outputs)] += 1
        else:
            score, probabilities = outputs
            value = acquisition(strategy, score, probabilities, id_, seed)
            class_, first = int(probabilities.argmax()), float(probabilities.max())
            name = f"class {class_}"
            pick = Pick(id_, 0, value, class_, first, entropy(probabilities), predicted_class_name=name)
            duplicate += id_ in best
            best[id_] = min(pick, best.get(id_, pick), key=_order)
    ranked = sorted(best.values(), key=_order)[:budget]
    picks = tuple(replace(pick, rank=rank) for rank, pick in enumerate(ranked, 1))
    accounts = Accounts(
        read=len(rows),
        scored=len(best),
        skipped=skipped,
        duplicate=duplicate,
        excluded=excluded,
        excluded_unmatched=unmatched,
        labelled_unmatched=2,
    )
    return picks, accounts


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
    total = sum(float(probability * np.log(probability)) for probability in probabilities if probability > 0)
    return 0.0 - total


def _order(pick: Pick) -> tuple[float, str, int, float, float]:
    return -pick.score, pick.id, pick.predicted_class, pick.probability, pick.entropy
