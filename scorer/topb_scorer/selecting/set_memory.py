"""Estimate the memory of a set-based selection, and refuse a selection that needs more than the limit."""

from __future__ import annotations

from dataclasses import dataclass

from topb_scorer.errors import LimitExceededError
from topb_scorer.selecting.ranking import COLUMN_BYTES
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import SetBasedStrategy


@dataclass(frozen=True)
class SetMemory:
    """The memory that a set-based selection holds: everything that grows with the pool or the labelled set.

    Not counted are the shard that is being read, buffers of constant size, the request and the picks.
    """

    strategy: SetBasedStrategy
    spec: SelectionSpec
    width: int
    """D, the number of features."""
    classes: int
    """C, the number of classes that the model predicts."""
    labelled: int
    """L, the number of images in the bundle's labelled set."""
    limit: int
    """The maximum in bytes."""

    def check_pool(self, rows: int) -> None:
        """Refuse a pool that surely needs too much, before it is scored.

        All excluded and labelled images are assumed to be in the pool, and ids to take no memory. Skipped and
        duplicate rows are not known yet.

        Args:
            rows: the number of rows of the pool.

        Raises:
            LimitExceededError: with reason FEATURES_OVER_LIMIT.
        """
        left_out = 0 if self.spec.include_labelled else self.labelled
        excluded = min(len(self.spec.exclude), max(rows - left_out, 0))
        candidates = max(rows - left_out - excluded, 0)
        shortlist = self.strategy.shortlist
        if shortlist is not None:
            candidates = min(candidates, shortlist.candidates_per_pick * self.spec.budget)
        held = self.labelled + excluded if self.strategy.uses_labelled else 0
        self.check(candidates, held, candidates * COLUMN_BYTES)

    def check(self, candidates: int, labelled: int, column_bytes: int) -> None:
        """Refuse a selection that needs too much.

        Args:
            candidates: the number of candidates.
            labelled: the number of labelled rows, with the excluded ones.
            column_bytes: the memory for the columns of candidates and excluded rows, with their ids.

        Raises:
            LimitExceededError: with reason FEATURES_OVER_LIMIT.
        """
        needed = self.needed(candidates, labelled, column_bytes)
        if needed > self.limit:
            raise LimitExceededError(
                f"strategy {self.spec.strategy} needs {needed / 2**20:,.1f} MiB of memory for {candidates} "
                f"candidates and {labelled} labelled images with {self.width} features each, but the limit "
                f"is {self.limit / 2**20:,.1f} MiB; use a pointwise strategy with the option diversify, or "
                "split the pool",
                reason="FEATURES_OVER_LIMIT",
                rows=candidates,
                width=self.width,
            )

    def needed(self, candidates: int, labelled: int, column_bytes: int) -> int:
        """Return the memory in bytes. The arguments are those of `check`."""
        columns = self.classes if "probabilities" in self.strategy.needs else 0
        features = candidates * (self.width + columns) * 4 + labelled * self.width * 4
        working = self.strategy.working_bytes(candidates, labelled, self.width, self.spec.budget)
        # The labelled features of the bundle are there twice: alone, and with the excluded rows.
        return features + self.labelled * self.width * 4 + column_bytes + working
