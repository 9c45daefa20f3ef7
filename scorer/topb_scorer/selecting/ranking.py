"""The total order of candidates, and the b best of a stream of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Candidate(NamedTuple):
    """A scored row. Candidates compare in the total order: score descending, then id ascending.

    What follows the id settles between rows of one id and score, so that no order of reading shows.
    """

    negative_score: float
    id: str
    predicted_class: int
    probability: float
    entropy: float


class TopB:
    """The b first candidates in the total order, one an id, in memory that grows with b alone.

    Of rows with one id the first in the total order counts. A candidate that falls out can be forgotten: b
    others, of other ids, stand before it for good.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._candidates: list[Candidate] = []
        self._limit = 2 * budget + 1024
        # Nothing that scores less than the b-th candidate can come in.
        self._threshold = -math.inf

    def offer(
        self,
        ids: Sequence[str],
        scores: NDArray[np.float64],
        predicted_class: NDArray[np.int32],
        probability: NDArray[np.float32],
        entropy: NDArray[np.float64],
    ) -> None:
        """Takes rows, column by column, each of length n; scores are finite."""
        # In pieces, so that the threshold rises and the list stays short within one large offer too.
        for start in range(0, len(ids), 4096):
            part = slice(start, start + 4096)
            for row in (start + np.flatnonzero(scores[part] >= self._threshold)).tolist():
                self._candidates.append(
                    Candidate(
                        -float(scores[row]),
                        ids[row],
                        int(predicted_class[row]),
                        float(probability[row]),
                        float(entropy[row]),
                    )
                )
            if len(self._candidates) > self._limit:
                self._compact()

    def ranked(self) -> list[Candidate]:
        """At most b candidates, first to last."""
        self._compact()
        return list(self._candidates)

    def _compact(self) -> None:
        first_of_id: dict[str, Candidate] = {}
        for candidate in sorted(self._candidates):
            if candidate.id not in first_of_id:
                first_of_id[candidate.id] = candidate
                if len(first_of_id) == self._budget:
                    break
        self._candidates = list(first_of_id.values())
        if len(self._candidates) == self._budget:
            self._threshold = -self._candidates[-1].negative_score
