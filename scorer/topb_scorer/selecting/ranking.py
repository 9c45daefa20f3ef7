"""Define the total order of candidates, and keep the b best of a stream."""

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

    The fields after the id order rows with the same id and score, so that the reading order has no effect.
    """

    negative_score: float
    id: str
    predicted_class: int
    probability: float
    entropy: float

    @classmethod
    def of(cls, part: ScoredRows, row: int, score: float) -> Self:
        """Return a row of a part of the log as a candidate with the given acquisition score."""
        return cls(
            -score,
            part.ids[row],
            int(part.predicted_class[row]),
            float(part.confidence[row]),
            float(part.entropy[row]),
        )

    @property
    def score(self) -> float:
        """The acquisition score; −0 is returned as 0."""
        return -self.negative_score + 0.0

    def pick(self, rank: int, score: float, radius: float | None = None) -> Pick:
        """Return the candidate as a pick."""
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
    """The result of selecting from a score log."""

    picks: tuple[Pick, ...]
    """The picks in rank order."""
    accounts: Accounts
    measures: Mapping[str, float] = field(default_factory=dict)
    """Measures of the whole batch by name, if the strategy reports any."""


class TopB:
    """Keeps the first b candidates in the total order, one per id, in memory proportional to b.

    If several rows have the same id, the first in the total order is kept. A candidate that is not among the
    first b is dropped, because later candidates can only move it further back.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._candidates: list[Candidate] = []
        self._limit = 2 * budget + 1024
        # A row with a lower score than the b-th candidate cannot be among the first b.
        self._threshold = -math.inf

    def offer(self, part: ScoredRows, rows: NDArray[np.intp], scores: NDArray[np.float64]) -> None:
        """Consider some rows of a part of the log.

        Args:
            part: the part.
            rows: (n,) indices of rows.
            scores: float64 (n,), the acquisition scores of these rows, finite.
        """
        # Slices let the threshold rise and keep the list short within a large part.
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
