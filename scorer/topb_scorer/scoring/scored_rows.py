"""Define the rows of a score log: what follows from a model's outputs, without the outputs themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topb_scorer.pools.pool import DIGEST_BYTES
from topb_scorer.scoring.encoded_rows import Skip

NOT_FINITE = "SCORE_NOT_FINITE"


@dataclass(frozen=True)
class ScoredRows:
    """The columns of n rows of one shard. The numbers of skipped rows have no meaning."""

    ids: list[str]
    digests: NDArray[np.uint8]
    """uint8 (n, 16): the content digests of the images, `NO_DIGEST` for rows that could not be read."""
    score: NDArray[np.float32]
    """float32 (n,): the model's `score` output. Its meaning depends on the training method: the assistant's
    logit for AALU, the discriminator's logit for VAAL, and 0 for models without either."""
    entropy: NDArray[np.float64]
    """float64 (n,): entropy of the predicted distribution, in nats. This and the next two are 0 if the model
    has no classifier."""
    margin: NDArray[np.float64]
    """float64 (n,): difference between the largest and the second-largest probability."""
    confidence: NDArray[np.float32]
    """float32 (n,): largest probability."""
    predicted_class: NDArray[np.int32]
    """int32 (n,): index of the most probable class; −1 if the model has no classifier."""
    skips: Mapping[int, Skip]
    """Rows that could not be scored, by index."""

    def ids_of(self, rows: NDArray[np.intp]) -> list[str]:
        """Return the ids of the given rows. `rows` must be ascending."""
        return self.ids if len(rows) == len(self.ids) else [self.ids[row] for row in rows.tolist()]


def scored_rows(
    ids: list[str],
    outputs: Mapping[str, NDArray[np.float32]],
    skips: Mapping[int, Skip],
    *,
    digests: NDArray[np.uint8] | None = None,
) -> ScoredRows:
    """Return the rows that the score log stores for a model's outputs.

    Args:
        ids: n ids.
        outputs: all outputs of the model, such as `features`, float32 (n, D). If the model has them, `score`,
            float32 (n,), and `probabilities`, float32 (n, C) with C ≥ 1, are among them. The buffers may be
            overwritten afterwards.
        skips: rows that could not be scored. A row with any output that is not finite is skipped as well,
            whether or not the log stores that output.
        digests: uint8 (n, 16), the content digests of the images; None if they are not known.
    """
    finite = np.ones(len(ids), bool)
    for values in outputs.values():
        finite &= np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    all_skips = dict(skips)
    for row in np.flatnonzero(~finite).tolist():
        all_skips.setdefault(row, Skip(NOT_FINITE, "the model's outputs are not all finite"))
    if digests is None:
        digests = np.zeros((len(ids), DIGEST_BYTES), np.uint8)
    score = outputs.get("score", np.zeros(len(ids), np.float32)).copy()
    probabilities = outputs.get("probabilities", np.zeros((len(ids), 0), np.float32))
    predictions = _predictions(np.where(finite[:, None], probabilities, 1.0).astype(np.float64))
    return ScoredRows(ids=ids, digests=digests, score=score, **predictions, skips=all_skips)


def _predictions(exact: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return the columns of ScoredRows that follow from probabilities, float64 (n, C)."""
    rows, classes = exact.shape
    if not classes:
        zero = np.zeros(rows)
        none = {"confidence": zero.astype(np.float32), "predicted_class": np.full(rows, -1, np.int32)}
        return {"entropy": zero, "margin": zero, **none}
    log = np.log(exact, out=np.zeros_like(exact), where=exact > 0)
    top = -np.sort(-exact, axis=1)
    return {
        "entropy": -(exact * log).sum(axis=1) + 0.0,
        "margin": top[:, 0] - top[:, 1] if classes > 1 else top[:, 0],
        "confidence": top[:, 0].astype(np.float32),
        "predicted_class": exact.argmax(axis=1).astype(np.int32),
    }
