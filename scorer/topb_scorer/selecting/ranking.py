"""Define the total order of candidates, and keep the b best of a stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from topb.results import Accounts, Pick
from topb_scorer.scoring.scored_rows import ScoredRows


class Candidate(NamedTuple):
    """A scored row. Candidates compare in the total order: score descending, then id ascending.

    The fields after the id order rows with the same id and score, so that the reading order has no effect.
    """

    negative_score: float
    id: str
    predicted_class: int
    probability: float
    entropy: float

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


_ORDER = ["negative_score", *(name for name in Candidate._fields if name != "negative_score"), "position"]
_SCHEMA = pa.schema(
    {
        "negative_score": pa.float64(),
        "id": pa.large_string(),
        "predicted_class": pa.int32(),
        "probability": pa.float32(),
        "entropy": pa.float64(),
        "position": pa.int64(),
    }
)
COLUMN_BYTES = 48
"""The memory for a row in `CandidateColumns`, in bytes, without the characters of its id."""


@dataclass(frozen=True)
class CandidateColumns:
    """Candidates as columns, which take a tenth of the memory of `Candidate` objects."""

    table: pa.Table
    """n rows, with the fields of `Candidate` and `position`."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def nbytes(self) -> int:
        """The memory that the columns take, in bytes."""
        return int(self.table.nbytes)

    @property
    def positions(self) -> NDArray[np.int64]:
        """int64 (n,): how many rows were read before each candidate."""
        positions: NDArray[np.int64] = self.table["position"].to_numpy()
        return positions

    @property
    def scores(self) -> NDArray[np.float64]:
        """float64 (n,): acquisition scores."""
        scores: NDArray[np.float64] = -self.table["negative_score"].to_numpy() + 0.0
        return scores

    def rows(self, indices: NDArray[np.int64]) -> list[Candidate]:
        """Return some candidates."""
        columns = self.table.select(Candidate._fields).take(indices)
        return list(map(Candidate, *(column.to_pylist() for column in columns)))

    def best_of_each_id(self) -> CandidateColumns:
        """Return one candidate for each id, the first in the total order. They are sorted by id."""
        ordered = self._sorted("id", *_ORDER)
        ids = ordered.table["id"].combine_chunks()
        if len(ids) < 2:
            return ordered
        changed = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        return CandidateColumns(ordered.table.take(np.flatnonzero(np.append(True, changed))))

    def first(self, count: int) -> CandidateColumns:
        """Return up to `count` candidates in the total order."""
        return self._sorted(*_ORDER, count=count)

    def _sorted(self, *names: str, count: int | None = None) -> CandidateColumns:
        order = pc.sort_indices(self.table, [(name, "ascending") for name in dict.fromkeys(names)])
        return CandidateColumns(self.table.take(order[:count]))


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

    def __init__(self, budget: int | None) -> None:
        """Start without candidates.

        Args:
            budget: b; None to keep all candidates.
        """
        self._budget = budget
        self._batches: list[pa.RecordBatch] = []
        self._held = self._nbytes = self._read = 0
        # A row with a lower score than the b-th candidate cannot be among the first b.
        self._threshold = -math.inf

    @property
    def nbytes(self) -> int:
        """The memory for the candidates so far, in bytes. While they are sorted, there are three copies."""
        return 3 * self._nbytes

    def offer(self, part: ScoredRows, rows: NDArray[np.intp], scores: NDArray[np.float64]) -> None:
        """Consider some rows of a part of the log. Each part must be offered once.

        Args:
            part: the part.
            rows: (n,) indices of rows.
            scores: float64 (n,), the acquisition scores of these rows, finite.
        """
        # Slices let the threshold rise and keep the list short within a large part.
        for start in range(0, len(rows), 4096):
            some = start + np.flatnonzero(scores[start : start + 4096] >= self._threshold)
            if len(some):
                self._add(part, rows[some], scores[some])
        self._read += len(part.ids)

    def ranked(self) -> list[Candidate]:
        """Return at most b candidates in the total order."""
        if self._budget is not None:
            self._compact(self._budget)
        columns = self._columns()
        return columns.rows(np.arange(len(columns)))

    def by_id(self) -> CandidateColumns:
        """Return at most b candidates, sorted by id."""
        columns = self._columns().best_of_each_id()
        if self._budget is None or len(columns) <= self._budget:
            return columns
        return columns.first(self._budget).best_of_each_id()

    def _add(self, part: ScoredRows, rows: NDArray[np.intp], scores: NDArray[np.float64]) -> None:
        columns = [
            -scores + 0.0,
            pa.array([part.ids[row] for row in rows.tolist()], pa.large_string()),
            part.predicted_class[rows],
            part.confidence[rows],
            part.entropy[rows],
            self._read + rows,
        ]
        batch = pa.record_batch(columns, schema=_SCHEMA)
        self._batches.append(batch)
        self._held += len(rows)
        self._nbytes += batch.nbytes
        if self._budget is not None and self._held > 2 * self._budget + 1024:
            self._compact(self._budget)

    def _compact(self, budget: int) -> None:
        best = self._columns().best_of_each_id().first(budget)
        self._batches = best.table.to_batches()
        self._held, self._nbytes = len(best), best.nbytes
        if len(best) == budget:
            self._threshold = float(best.scores[-1])

    def _columns(self) -> CandidateColumns:
        return CandidateColumns(pa.Table.from_batches(self._batches, schema=_SCHEMA))
