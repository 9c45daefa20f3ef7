"""A selection: from a pool, or a score log, to ranked picks with accounts."""

from __future__ import annotations

import itertools
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from topb.results import Accounts, Pick, SelectionResult
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import SelectionCancelledError, UnreadablePoolError
from topb_scorer.pools.pool import Shard
from topb_scorer.scoring.score_log import AlteredShardError, ScoredRows, ScoreLog
from topb_scorer.selecting.ledger import Ledger
from topb_scorer.selecting.ranking import Candidate, TopB
from topb_scorer.selecting.set_based import check_fits, select_set_from_log
from topb_scorer.selecting.spec import SelectionSpec, check_strategy_served
from topb_scorer.strategies import pointwise

_log = logging.getLogger(__name__)

# An altered shard is scored again; a disk that alters it each time is not to be trusted.
_ATTEMPTS = 5


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
        log = ScoreLog(Path(directory), durable=False, with_features=spec.plan.needs_features)
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
        log: of the engine's model, with features where the strategy needs them; holds what was scored
            before, and will hold all.
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
    check_strategy_served(spec, engine.bundle)
    report = on_rows or _ignore
    known = _known(shards) if rereadable else None
    if known is not None and spec.plan.set_based is not None and spec.plan.pointwise is None:
        # Said before hours of scoring, not after.
        (width,) = engine.bundle.output_shape("features")
        check_fits(sum(shard.rows for shard in known), width, engine.settings.max_set_bytes)
    if known is None:
        # What cannot be read of it is found out when all of it is.
        with suppress(AlteredShardError):
            report(log.rows(log.identities()))
        engine.fill(log, shards, cancelled=cancelled, on_rows=report, on_commit=on_commit or _ignore)
    for attempt in itertools.count(1):
        if known is not None:
            missing = [shard for shard in known if not log.holds(shard.identity)]
            if attempt == 1:
                report(sum(shard.rows for shard in known) - sum(shard.rows for shard in missing))
            found: list[Shard] = []
            engine.fill(
                log,
                _still_missing(missing, log, found),
                cancelled=cancelled,
                on_rows=report if attempt == 1 else _ignore,
                on_commit=on_commit or _ignore,
            )
            report(sum(shard.rows for shard in found))
        identities = log.identities() if known is None else [shard.identity for shard in known]
        if on_complete is not None:
            on_complete(len(identities))
        try:
            picks, accounts, measures = _selected(spec, engine, log, identities, cancelled)
            break
        except AlteredShardError as error:
            if known is not None and attempt == _ATTEMPTS:
                raise UnreadablePoolError(
                    f"{error}, {attempt} times over; is the disk of the score log failing?",
                    reason="SCORE_LOG_UNREADABLE",
                ) from error
            if known is None:
                raise UnreadablePoolError(
                    f"the scores of chunk {error.identity} are lost; send the pool under a new request id",
                    reason="STREAM_SCORES_LOST",
                ) from error
            _log.warning("%s; it is scored again, and what else was altered", error)
            for identity in identities:
                if not log.verify(identity):
                    log.discard(identity)
    return SelectionResult(
        picks=picks,
        accounts=accounts,
        model=engine.bundle.model_id,
        strategy=spec.strategy,
        seed=spec.seed,
        budget=spec.budget,
        elapsed_seconds=time.monotonic() - started,
        measures=measures,
    )


def _selected(
    spec: SelectionSpec,
    engine: LocalEngine,
    log: ScoreLog,
    identities: Sequence[str],
    cancelled: threading.Event,
) -> tuple[tuple[Pick, ...], Accounts, Mapping[str, float]]:
    def read() -> Iterator[ScoredRows]:
        return _until(cancelled, log.read(identities))

    rows = log.rows(identities)
    with tempfile.TemporaryDirectory(prefix="topb-") as scratch:
        if spec.plan.set_based is None:
            return *select_from_log(spec, read(), rows=rows, scratch=Path(scratch)), {}
        return select_set_from_log(
            spec,
            read,
            engine.bundle.labelled_features(),
            rows=rows,
            scratch=Path(scratch),
            max_bytes=engine.settings.max_set_bytes,
            search_device=engine.settings.search_device,
        )


def select_from_log(
    spec: SelectionSpec, log: Iterable[ScoredRows], *, rows: int, scratch: Path
) -> tuple[tuple[Pick, ...], Accounts]:
    """Pointwise selection: picks and accounts, a function of the log's rows and the spec, not of their order.

    Args:
        spec: what to select, by a pointwise strategy.
        log: the rows, in parts.
        rows: about how many there are in all; sizes the counting of duplicates.
        scratch: a directory for what is spilled meanwhile.
    """
    acquisition = pointwise(spec.strategy)
    top = TopB(spec.budget)
    with Ledger(spec.exclude, scratch, rows) as ledger:
        for part in log:
            ranked = ledger.take(part)
            top.offer(
                part.ids_of(ranked),
                acquisition(part, seed=spec.seed)[ranked],
                part.predicted_class[ranked],
                part.confidence[ranked],
                part.entropy[ranked],
            )
        accounts = ledger.accounts()
    return tuple(_pick(rank, candidate) for rank, candidate in enumerate(top.ranked(), 1)), accounts


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


def _still_missing(missing: Iterable[Shard], log: ScoreLog, found: list[Shard]) -> Iterator[Shard]:
    """Those that nobody else has committed by the time that they are read; the others go to `found`."""
    for shard in missing:
        if log.holds(shard.identity):
            found.append(shard)
        else:
            yield shard


def _until(cancelled: threading.Event, parts: Iterable[ScoredRows]) -> Iterator[ScoredRows]:
    for part in parts:
        if cancelled.is_set():
            raise SelectionCancelledError
        yield part


def _ignore(_: object) -> None:
    """Stands where nobody wants to be told."""
