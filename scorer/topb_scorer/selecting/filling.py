"""Fill the logs of a model with the shards of a pool, from kept features where there are any."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from topb_scorer.engines.local import LocalEngine
from topb_scorer.errors import StorageFullError
from topb_scorer.pools.pool import Shard
from topb_scorer.pools.vectors import VectorShard
from topb_scorer.scoring.feature_log import expected_bytes
from topb_scorer.scoring.model_logs import ModelLogs
from topb_scorer.selecting.observer import SelectionObserver

_log = logging.getLogger(__name__)


def fill(
    engine: LocalEngine,
    logs: ModelLogs,
    pool: Sequence[Shard],
    *,
    observer: SelectionObserver,
    on_rows: Callable[[int], None],
    cancelled: threading.Event,
) -> None:
    """Score the shards of the pool that are not in the logs, and report every row of the pool once.

    Another process may fill the same logs at the same time. Whether a shard is missing, or its features are,
    is therefore asked again just before it is read.

    Args:
        engine: scores the shards.
        logs: the logs of the engine's model.
        pool: the whole pool.
        observer: receives the shards that are committed and the rows that are encoded.
        on_rows: called with numbers of rows.
        cancelled: setting it stops the work within one batch.

    Raises:
        StorageFullError: with reason FEATURES_OVER_DISK.
        SelectionCancelledError: `cancelled` was set.
        UnreadablePoolError: a shard cannot be read to its end.
    """

    def on_encoded(count: int) -> None:
        observer.on_encoded(count)
        on_rows(count)

    missing = [shard for shard in pool if not logs.holds(shard.identity)]
    on_rows(row_count(pool) - row_count(missing))
    check_disk(engine, logs, missing)
    while missing:
        encoded = [shard for shard in missing if logs.features.holds(shard.identity)]
        lost = engine.fill_from_features(
            logs, encoded, cancelled=cancelled, on_rows=on_rows, on_commit=observer.on_commit
        )
        met: list[Shard] = []
        unread = _neither_scored_nor_encoded(logs, [*_without(missing, encoded), *lost], met)
        engine.fill(logs, unread, cancelled=cancelled, on_rows=on_encoded, on_commit=observer.on_commit)
        missing = [shard for shard in met if not logs.holds(shard.identity)]
        on_rows(row_count(met) - row_count(missing))


def check_disk(engine: LocalEngine, logs: ModelLogs, missing: Iterable[Shard]) -> None:
    """Log how much space the features of shards will take, and refuse them if the disk does not have it.

    Raises:
        StorageFullError: with reason FEATURES_OVER_DISK.
    """
    if not logs.writes_features:
        return
    rows = row_count(
        shard
        for shard in missing
        if not logs.features.holds(shard.identity)
        and (logs.needs_features or not isinstance(shard, VectorShard))
    )
    needed = expected_bytes(engine.bundle, rows)
    free = shutil.disk_usage(_existing(logs.features.directory)).free
    if needed > free:
        unless = "" if logs.needs_features else ", or do not keep them (--keep-features needed)"
        raise StorageFullError(
            f"the features of {rows} images take about {needed / 2**20:,.1f} MiB, but the disk has "
            f"{free / 2**20:,.1f} MiB left; free space, for example with topb scores prune{unless}",
            reason="FEATURES_OVER_DISK",
            rows=rows,
            bytes=needed,
        )
    if rows:
        _log.info(
            "the features of %d images will take about %.1f MiB; the disk has %.1f MiB left",
            rows,
            needed / 2**20,
            free / 2**20,
        )


def row_count(shards: Iterable[Shard]) -> int:
    """Return the number of rows of all shards."""
    return sum(shard.rows for shard in shards)


def _neither_scored_nor_encoded(
    logs: ModelLogs, shards: Iterable[Shard], others: list[Shard]
) -> Iterator[Shard]:
    """Yield the shards whose images must be read. Add the others to `others`."""
    for shard in shards:
        if logs.holds(shard.identity) or logs.features.holds(shard.identity):
            others.append(shard)
        else:
            yield shard


def _without(shards: Iterable[Shard], others: Iterable[Shard]) -> list[Shard]:
    identities = {shard.identity for shard in others}
    return [shard for shard in shards if shard.identity not in identities]


def _existing(directory: Path) -> Path:
    """Return the directory, or the nearest parent that exists."""
    return next(path for path in (directory, *directory.absolute().parents) if path.exists())
