"""Account for the rows of a selection: each one is either scored, skipped, duplicate or excluded."""

from __future__ import annotations

import heapq
from collections import Counter
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topb.results import Accounts, SkippedRow
from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.selecting.distinct_ids import DistinctIds
from topb_scorer.selecting.excluded import ExcludedImages

SKIPPED_EXAMPLES = 20
"""The number of skipped rows that are listed individually: the first ones by id."""
_ORDER = attrgetter("id", "reason", "detail")


class TakenRows(NamedTuple):
    """The rows of a part of the log that a strategy uses."""

    rankable: NDArray[np.intp]
    """Indices of the rows that can be ranked, ascending."""
    excluded: NDArray[np.intp]
    """Indices of the scored rows that only the request excludes, ascending."""


class Ledger:
    """Counts the rows of a score log, part by part. The order of the parts has no effect."""

    def __init__(self, exclude: ExcludedImages, labelled: ExcludedImages, scratch: Path, rows: int) -> None:
        """Open the ledger.

        Args:
            exclude: images to leave out because the request says so.
            labelled: images to leave out because the model was trained on them.
            scratch: a directory for temporary files, which the caller removes.
            rows: the approximate number of rows.
        """
        self._exclude = exclude
        self._labelled = labelled
        self._distinct = DistinctIds(scratch, rows)
        self._read = self._excluded = self._excluded_labelled = self._rankable = 0
        self._skipped: Counter[str] = Counter()
        self._examples: list[SkippedRow] = []

    def close(self) -> None:
        """Close the temporary files."""
        self._distinct.close()

    def take(self, part: ScoredRows) -> TakenRows:
        """Count the rows of a part, and return those that a strategy uses, duplicates included."""
        labelled = self._labelled.among(part)
        excluded = self._exclude.among(part)
        kept = ~(excluded | labelled)
        skipped = [
            SkippedRow(part.ids[row], skip.reason, skip.detail)
            for row, skip in part.skips.items()
            if kept[row]
        ]
        self._read += len(part.ids)
        self._excluded += len(part.ids) - int(kept.sum())
        self._excluded_labelled += int(labelled.sum())
        kept[list(part.skips)] = excluded[list(part.skips)] = False
        rankable = np.flatnonzero(kept)
        self._rankable += len(rankable)
        self._skipped.update(row.reason for row in skipped)
        self._examples = heapq.nsmallest(SKIPPED_EXAMPLES, self._examples + skipped, key=_ORDER)
        self._distinct.add(part.ids_of(rankable))
        return TakenRows(rankable, np.flatnonzero(excluded & ~labelled))

    def accounts(self) -> Accounts:
        """Return the accounts of all rows that were counted so far."""
        scored = self._distinct.count()
        return Accounts(
            read=self._read,
            scored=scored,
            skipped=self._skipped,
            duplicate=self._rankable - scored,
            excluded=self._excluded,
            excluded_unmatched=self._exclude.not_found(),
            excluded_labelled=self._excluded_labelled,
            labelled_unmatched=self._labelled.not_found(),
            skipped_examples=tuple(self._examples),
        )
