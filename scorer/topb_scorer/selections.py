"""A selection: from a request over a pool, or over a score log, to ranked picks with accounts."""

from __future__ import annotations

import heapq
import logging
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from topb.results import Accounts, Pick, SelectionResult, SkippedRow

from topb_scorer.distinct_ids import DistinctIds
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import (
    InvalidRequestError,
    LimitExceededError,
    SelectionCancelledError,
    UnreadablePoolError,
)
from topb_scorer.pools.pool import Shard
from topb_scorer.ranking import Candidate, TopB
from topb_scorer.score_log import AlteredShardError, ScoredRows, ScoreLog
from topb_scorer.strategies import DEFAULT_STRATEGY, names, pointwise

_log = logging.getLogger(__name__)

MAX_BUDGET = 1_000_000
SKIPPED_EXAMPLES = 20


@dataclass(frozen=True)
class SelectionSpec:
    """What to select, whatever the pool.

    Raises:
        InvalidRequestError: a field is out of its range, or names what is not there.
        LimitExceededError: the budget is over MAX_BUDGET.
    """

    budget: int
    """b, from 1 to MAX_BUDGET."""
    strategy: str = DEFAULT_STRATEGY
    """Name of a query strategy."""
    seed: int = 0
    """For strategies that draw at random, from 0 to 2⁶⁴ − 1."""
    exclude: frozenset[str] = frozenset()
    """Ids to leave out."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Of the strategy; the pointwise ones take none."""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InvalidRequestError(
                f"budget {self.budget}; expected at least 1", reason="BUDGET_NOT_POSITIVE", budget=self.budget
            )
        if self.budget > MAX_BUDGET:
            raise LimitExceededError(
                f"budget {self.budget}; at most {MAX_BUDGET} images are picked at once",
                reason="BUDGET_TOO_LARGE",
                budget=self.budget,
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidRequestError(
                f"seed {self.seed}; expected 0 to 2**64 - 1", reason="SEED_OUT_OF_RANGE", seed=self.seed
            )
        pointwise(self.strategy)
        if self.options:
            raise InvalidRequestError(
                f"strategy {self.strategy} takes no options; got {', '.join(sorted(self.options))}",
                reason="STRATEGY_OPTION_UNKNOWN",
                strategy=self.strategy,
            )


def check_strategy_served(spec: SelectionSpec, model_id: str, served: Iterable[str]) -> None:
    """Raises InvalidRequestError unless the model's outputs allow the strategy."""
    allowed = sorted(set(served) & set(names()))
    if spec.strategy not in allowed:
        raise InvalidRequestError(
            f"model {model_id} cannot serve strategy {spec.strategy!r}; it can serve {', '.join(allowed)}",
            reason="STRATEGY_NOT_SERVED",
            strategy=spec.strategy,
            model=model_id,
        )


def select_from_shards(
    spec: SelectionSpec,
    engine: LocalEngine,
    shards: Iterable[Shard | None],
    *,
    cancelled: threading.Event,
    on_rows: Callable[[int], None] | None = None,
) -> SelectionResult:
    """Scores the shards into a score log of its own, selects from it, and removes it.

    Args and errors are those of `select_into_log`.
    """
    with tempfile.TemporaryDirectory(prefix="topb-") as directory:
        log = ScoreLog(Path(directory), durable=False)
        return select_into_log(spec, engine, shards, log, cancelled=cancelled, on_rows=on_rows)


def select_into_log(
    spec: SelectionSpec,
    engine: LocalEngine,
    shards: Iterable[Shard | None],
    log: ScoreLog,
    *,
    rereadable: bool = True,
    cancelled: threading.Event,
    on_rows: Callable[[int], None] | None = None,
    on_commit: Callable[[Shard], None] | None = None,
    on_complete: Callable[[int], None] | None = None,
) -> SelectionResult:
    """Scores what the log does not hold yet, and selects from the log.

    Args:
        spec: what to select.
        engine: scores.
        shards: the pool; as `score_shards` takes them where it is not rereadable.
        log: of the engine's model; holds what was scored before, and will hold all.
        rereadable: whether shards can be read again, as those of a pool at a URI can. Otherwise all that the
            log holds is the pool, and `shards` is what comes on top.
        cancelled: stops the work within one batch.
        on_rows: called with the number of rows done since the last call, those in the log already included.
        on_commit: called once a shard is in the log.
        on_complete: called with the number of shards once the log holds the whole pool.

    Raises:
        InvalidRequestError: the model cannot serve the strategy.
        SelectionCancelledError: `cancelled` was set.
        UnreadablePoolError: a shard cannot be read to its end, or not read again though its scores are lost.
    """
    started = time.monotonic()
    check_strategy_served(spec, engine.bundle.model_id, engine.bundle.strategies)
    report = on_rows or _ignore
    known = _known(shards) if rereadable else None
    if known is None:
        engine.fill(log, shards, cancelled=cancelled, on_rows=report, on_commit=on_commit or _ignore)
    while True:
        if known is not None:
            missing = [shard for shard in known if not log.holds(shard.identity)]
            report(sum(shard.rows for shard in known) - sum(shard.rows for shard in missing))
            engine.fill(log, missing, cancelled=cancelled, on_rows=report, on_commit=on_commit or _ignore)
        identities = log.identities() if known is None else [shard.identity for shard in known]
        if on_complete is not None:
            on_complete(len(identities))
        try:
            with tempfile.TemporaryDirectory(prefix="topb-") as scratch:
                picks, accounts = select_from_log(
                    spec,
                    _until(cancelled, log.read(identities)),
                    rows=log.rows(identities),
                    scratch=Path(scratch),
                )
            break
        except AlteredShardError as error:
            if known is None:
                raise UnreadablePoolError(
                    f"the scores of chunk {error.identity} are lost; send the pool under a new request id",
                    reason="STREAM_SCORES_LOST",
                ) from error
            _log.warning("%s; it is scored again", error)
            log.discard(error.identity)
    return SelectionResult(
        picks=picks,
        accounts=accounts,
        model=engine.bundle.model_id,
        strategy=spec.strategy,
        seed=spec.seed,
        budget=spec.budget,
        elapsed_seconds=time.monotonic() - started,
    )


def select_from_log(
    spec: SelectionSpec, log: Iterable[ScoredRows], *, rows: int, scratch: Path
) -> tuple[tuple[Pick, ...], Accounts]:
    """The picks and accounts: a function of the log's rows and the spec, not of their order.

    Args:
        spec: what to select.
        log: the rows, in parts.
        rows: about how many there are in all; sizes the counting of duplicates.
        scratch: a directory for what is spilled meanwhile.
    """
    acquisition = pointwise(spec.strategy)
    top = TopB(spec.budget)
    read = excluded = rankable = 0
    skipped: Counter[str] = Counter()
    examples: list[SkippedRow] = []
    with DistinctIds(scratch, rows) as distinct:
        for part in log:
            read += len(part.ids)
            kept = [row for row, id_ in enumerate(part.ids) if id_ not in spec.exclude]
            excluded += len(part.ids) - len(kept)
            part_skipped = [
                SkippedRow(part.ids[row], part.skips[row].reason, part.skips[row].detail)
                for row in kept
                if row in part.skips
            ]
            skipped.update(row.reason for row in part_skipped)
            examples = heapq.nsmallest(SKIPPED_EXAMPLES, examples + part_skipped, key=_by_id)
            ranked = np.array([row for row in kept if row not in part.skips], np.intp)
            ids = [part.ids[row] for row in ranked.tolist()]
            rankable += len(ids)
            distinct.add(ids)
            top.offer(
                ids,
                acquisition(part, seed=spec.seed)[ranked],
                part.predicted_class[ranked],
                part.confidence[ranked],
                part.entropy[ranked],
            )
        scored = distinct.count()
    accounts = Accounts(
        read=read,
        scored=scored,
        skipped=skipped,
        duplicate=rankable - scored,
        excluded=excluded,
        skipped_examples=tuple(examples),
    )
    return tuple(_pick(rank, candidate) for rank, candidate in enumerate(top.ranked(), 1)), accounts


def _by_id(row: SkippedRow) -> tuple[str, str, str]:
    return row.id, row.reason, row.detail


def _pick(rank: int, candidate: Candidate) -> Pick:
    return Pick(
        id=candidate.id,
        rank=rank,
        score=-candidate.negative_score + 0.0,
        predicted_class=candidate.predicted_class,
        probability=candidate.probability,
        entropy=candidate.entropy,
    )


def _known(shards: Iterable[Shard | None]) -> list[Shard]:
    """The shards of a pool that is known beforehand, each identity once."""
    by_identity = {shard.identity: shard for shard in shards if shard is not None}
    return list(by_identity.values())


def _until(cancelled: threading.Event, parts: Iterable[ScoredRows]) -> Iterator[ScoredRows]:
    for part in parts:
        if cancelled.is_set():
            raise SelectionCancelledError
        yield part


def _ignore(_: object) -> None:
    """Stands where nobody wants to be told."""
