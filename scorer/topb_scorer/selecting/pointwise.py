"""Pointwise selection from a score log: the b rows of highest acquisition score."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from topb_scorer.scoring.score_log import ScoredRows
from topb_scorer.selecting.ledger import Ledger
from topb_scorer.selecting.ranking import Picked, TopB
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import PointwiseStrategy


def select_pointwise(
    strategy: PointwiseStrategy,
    spec: SelectionSpec,
    log: Iterable[ScoredRows],
    *,
    rows: int,
    scratch: Path,
) -> Picked:
    """Return the b best rows with accounts: a function of the rows of the log, not of their order.

    Args:
        strategy: that of the spec.
        spec: what to select.
        log: all rows, in parts.
        rows: about how many rows there are; sizes the counting of duplicates.
        scratch: a directory for temporary files, which the caller removes.
    """
    top = TopB(spec.budget)
    with closing(Ledger(spec.exclude, scratch, rows)) as ledger:
        for part in log:
            rankable = ledger.take(part)
            top.offer(part, rankable, strategy.acquisition(part, seed=spec.seed)[rankable])
        accounts = ledger.accounts()
    picks = (candidate.pick(rank, candidate.score) for rank, candidate in enumerate(top.ranked(), 1))
    return Picked(tuple(picks), accounts)
