"""Select from a pool or a stream: fill the logs of the model, then pick from the logs."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from topb.results import Pick, SelectionResult
from topb_scorer.bundle import Bundle
from topb_scorer.cancellation import check_of, checked
from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import UnreadablePoolError
from topb_scorer.pools.pool import Shard
from topb_scorer.scoring.model_logs import ModelLogs, logs_below
from topb_scorer.scoring.shard_log import AlteredShardError
from topb_scorer.selecting.filling import fill, row_count
from topb_scorer.selecting.kept_features import KeptFeatures
from topb_scorer.selecting.observer import SelectionObserver
from topb_scorer.selecting.pointwise import select_pointwise
from topb_scorer.selecting.serving import check_strategy_served
from topb_scorer.selecting.set_based import select_set_based
from topb_scorer.selecting.set_memory import SetMemory
from topb_scorer.selecting.settings import SelectingSettings
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.strategies import PointwiseStrategy, SetBasedStrategy

_log = logging.getLogger(__name__)

# An altered shard is scored again. After this many attempts the disk is considered faulty.
_ATTEMPTS = 5


def select_from_pool(
    spec: SelectionSpec,
    engine: LocalEngine,
    shards: Iterable[Shard],
    logs: ModelLogs | None = None,
    *,
    settings: SelectingSettings = SelectingSettings(),
    observer: SelectionObserver = SelectionObserver(),
    cancelled: threading.Event,
) -> SelectionResult:
    """Score the shards of a pool that are not in the logs yet, then select from the logs.

    Args:
        spec: the description of what to select.
        engine: scores the shards.
        shards: the whole pool. A shard is read again if its scores or features are lost.
        logs: the logs of the engine's model, for a selection that reads features if the strategy needs them.
            Afterwards they hold the whole pool. None for temporary logs, which are removed.
        settings: the memory limit and the device for selecting.
        observer: receives the progress.
        cancelled: setting it stops the work within one batch, and selecting within one step of the strategy.

    Raises:
        InvalidRequestError: the model cannot serve the strategy.
        LimitExceededError: the strategy needs more memory than `settings` allow, or the disk has no room for
            the features.
        SelectionCancelledError: `cancelled` was set.
        UnreadablePoolError: a shard cannot be read to its end, or its scores are lost repeatedly.
    """
    if logs is None:
        with tempfile.TemporaryDirectory(prefix="topb-") as directory:
            logs = logs_below(Path(directory), needs_features=spec.needs_features, durable=False)
            return select_from_pool(
                spec, engine, shards, logs, settings=settings, observer=observer, cancelled=cancelled
            )
    started = time.monotonic()
    check_strategy_served(spec, engine.bundle)
    pool = list({shard.identity: shard for shard in shards}.values())
    strategy = spec.query_strategy
    if isinstance(strategy, SetBasedStrategy):
        # Refuse a pool that is too large now rather than after hours of scoring.
        labelled = engine.bundle.manifest.labelled_count
        _set_memory(strategy, spec, engine.bundle, labelled, settings).check_pool(row_count(pool))
    identities = [shard.identity for shard in pool]
    on_rows = observer.on_rows
    for _ in range(_ATTEMPTS):
        fill(engine, logs, pool, observer=observer, on_rows=on_rows, cancelled=cancelled)
        observer.on_complete(len(pool))
        try:
            return _selected(spec, engine, logs, identities, settings, cancelled, started)
        except AlteredShardError as error:
            altered = error
            _log.warning("%s; scoring all altered shards of the pool again", error)
        logs.discard_altered(identities)
        # All rows of the pool have already been reported.
        on_rows = SelectionObserver().on_rows
    raise UnreadablePoolError(
        f"{altered}, {_ATTEMPTS} times in a row; check the disk that holds the {altered.log}",
        reason="SCORE_LOG_UNREADABLE",
    ) from altered


def select_from_stream(
    spec: SelectionSpec,
    engine: LocalEngine,
    shards: Iterable[Shard | None],
    logs: ModelLogs,
    *,
    settings: SelectingSettings = SelectingSettings(),
    observer: SelectionObserver = SelectionObserver(),
    cancelled: threading.Event,
) -> SelectionResult:
    """Score shards as they arrive, then select from the whole logs.

    Arguments and errors are the same as for `select_from_pool`, except for the following.

    Args:
        shards: the shards that are not in the logs yet. They can be read only once. None means that no shard
            is ready: the partial batch is run now.
        logs: logs for this stream only.

    Raises:
        UnreadablePoolError: scores in the logs are lost, so the caller has to send the pool again.
    """
    started = time.monotonic()
    check_strategy_served(spec, engine.bundle)
    # A shard that cannot be read is reported below, when the whole log is read.
    with suppress(AlteredShardError):
        observer.on_rows(logs.scores.rows(logs.identities()))

    def on_rows(count: int) -> None:
        observer.on_encoded(count)
        observer.on_rows(count)

    engine.fill(logs, shards, cancelled=cancelled, on_rows=on_rows, on_commit=observer.on_commit)
    identities = logs.identities()
    observer.on_complete(len(identities))
    try:
        return _selected(spec, engine, logs, identities, settings, cancelled, started)
    except AlteredShardError as error:
        raise UnreadablePoolError(
            f"the scores of chunk {error.identity} are lost; send the pool with a new request id",
            reason="STREAM_SCORES_LOST",
        ) from error


def _with_class_names(picks: Iterable[Pick], classes: Sequence[str]) -> Iterator[Pick]:
    for pick in picks:
        named = 0 <= pick.predicted_class < len(classes)
        yield replace(pick, predicted_class_name=classes[pick.predicted_class] if named else "")


def _set_memory(
    strategy: SetBasedStrategy,
    spec: SelectionSpec,
    bundle: Bundle,
    labelled: int,
    settings: SelectingSettings,
) -> SetMemory:
    (width,) = bundle.output_shape("features")
    return SetMemory(strategy, spec, width, bundle.class_count, labelled, settings.max_set_bytes)


def _selected(
    spec: SelectionSpec,
    engine: LocalEngine,
    logs: ModelLogs,
    identities: Sequence[str],
    settings: SelectingSettings,
    cancelled: threading.Event,
    started: float,
) -> SelectionResult:
    bundle = engine.bundle
    rows = logs.scores.rows(identities)
    strategy = spec.query_strategy
    check = check_of(cancelled)
    parts = checked(logs.scores.read(identities), check)
    labelled = {} if spec.include_labelled else bundle.labelled_digests()
    with tempfile.TemporaryDirectory(prefix="topb-") as directory:
        scratch = Path(directory)
        if isinstance(strategy, PointwiseStrategy):
            picked = select_pointwise(strategy, spec, parts, labelled, rows=rows, scratch=scratch)
        else:
            features = bundle.labelled_features()
            picked = select_set_based(
                strategy,
                spec,
                parts,
                KeptFeatures(logs.features, identities, engine.session.head, check),
                labelled,
                features,
                memory=_set_memory(strategy, spec, bundle, len(features), settings),
                rows=rows,
                scratch=scratch,
                search_device=settings.search_device,
                check=check,
            )
    return SelectionResult(
        picks=tuple(_with_class_names(picked.picks, bundle.manifest.classes)),
        accounts=picked.accounts,
        model=bundle.model_id,
        strategy=spec.strategy,
        seed=spec.seed,
        budget=spec.budget,
        elapsed_seconds=time.monotonic() - started,
        measures=picked.measures,
    )
