"""Select the b rows with the highest acquisition scores from a score log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.selecting.excluded import ExcludedImages
from topb_scorer.selecting.ledger import Ledger
from topb_scorer.selecting.ranking import Picked, TopB
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import PointwiseStrategy


def select_pointwise(
    strategy: PointwiseStrategy,
    spec: SelectionSpec,
    log: Iterable[ScoredRows],
    labelled: Mapping[str, bytes],
    *,
    rows: int,
    scratch: Path,
) -> Picked:
    """Return the b best rows and the accounts. The order of the rows in the log has no effect.

    Args:
        strategy: the strategy of `spec`.
        spec: the description of what to select.
        log: all rows, in parts.
        labelled: images to leave out because the model was trained on them: content digests by id.
        rows: the approximate number of rows. It determines how many temporary files count duplicates.
        scratch: a directory for temporary files, which the caller removes.
    """
    top = TopB(spec.budget)
    with closing(Ledger(ExcludedImages(spec.exclude), ExcludedImages(labelled), scratch, rows)) as ledger:
        for part in log:
            rankable = ledger.take(part).rankable
            top.offer(part, rankable, strategy.acquisition(part, seed=spec.seed)[rankable])
        accounts = ledger.accounts()
    picks = (candidate.pick(rank, candidate.score) for rank, candidate in enumerate(top.ranked(), 1))
    return Picked(tuple(picks), accounts)
