"""The total order of candidates, and the b best of a stream of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from topb.results import Accounts, Pick
from topb_scorer.scoring.score_log import ScoredRows


class Candidate(NamedTuple):
    """A scored row. Candidates compare in the total order: score descending, then id ascending.

    The fields after the id decide between rows of one id and score, so that the reading order has no effect.
    """

    negative_score: float
    id: str
    predicted_class: int
    probability: float
    entropy: float

    @classmethod
    def of(cls, part: ScoredRows, row: int, score: float) -> Self:
        """Return one row of a part of the log as a candidate with this acquisition score."""
        return cls(
            -score,
            part.ids[row],
            int(part.predicted_class[row]),
            float(part.confidence[row]),
            float(part.entropy[row]),
        )

    @property
    def score(self) -> float:
        """The acquisition score, with −0 as 0."""
        return -self.negative_score + 0.0

    def pick(self, rank: int, score: float, radius: float | None = None) -> Pick:
        """Return the candidate as the pick of this rank."""
        return Pick(
            id=self.id,
            rank=rank,
            score=score,
            predicted_class=self.predicted_class,
            probability=self.probability,
            entropy=self.entropy,
            radius=radius,
        )


@dataclass(frozen=True)
class Picked:
    """What selecting from a score log gives: ranked picks, and what became of every row of the log."""

    picks: tuple[Pick, ...]
    """In rank order."""
    accounts: Accounts
    measures: Mapping[str, float] = field(default_factory=dict)
    """Measures of the batch as a whole, by name, if the strategy reports any."""


class TopB:
    """The first b candidates in the total order, one for each id, in memory proportional to b.

    Of rows with one id, the first in the total order counts. A candidate outside the first b is dropped for
    good: b others with other ids come before it whatever is offered later.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._candidates: list[Candidate] = []
        self._limit = 2 * budget + 1024
        # A row that scores less than the b-th candidate cannot be among the first b.
        self._threshold = -math.inf

    def offer(self, part: ScoredRows, rows: NDArray[np.intp], scores: NDArray[np.float64]) -> None:
        """Consider some rows of a part of the log.

        Args:
            part: the part.
            rows: (n,) indices of rows.
            scores: float64 (n,) their acquisition scores, finite.
        """
        # In slices, so that the threshold rises and the list stays short within one large offer too.
        for start in range(0, len(rows), 4096):
            for i in (start + np.flatnonzero(scores[start : start + 4096] >= self._threshold)).tolist():
                self._candidates.append(Candidate.of(part, rows[i], float(scores[i])))
            if len(self._candidates) > self._limit:
                self._compact()

    def ranked(self) -> list[Candidate]:
        """Return at most b candidates in the total order."""
        self._compact()
        return self._candidates.copy()

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
