"""List and prune the score logs in a state directory.

Removing a shard never changes a result, because a selection that needs it scores it again. To save that work,
pruning keeps all shards of the models that open selections use. The log of a stream is removed only after its
selection has ended, because a stream cannot be read again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from topb_scorer.durable import is_unpublished

# Files that are being written and files that a dead server left behind differ only in age.
_LEFT_BEHIND_SECONDS = 3600.0


@dataclass(frozen=True)
class StoredShard:
    """One file of a score log."""

    log: str
    """The model, followed by `+features` if the log holds features."""
    path: Path
    size: int
    """The size in bytes."""
    modified: float
    """The time at which the shard was committed, in seconds since the epoch."""

    @property
    def model(self) -> str:
        """The id of the model that scored the shard."""
        return _model_of(self.log)


@dataclass(frozen=True)
class LogSummary:
    """A summary of one score log."""

    log: str
    """The model, followed by `+features` if the log holds features."""
    shards: int
    rows: int
    """The number of rows in the readable shards."""
    unreadable: int
    """The number of shards whose rows cannot be counted."""
    bytes: int
    oldest: float
    """The time at which the oldest shard was committed, in seconds since the epoch."""
    newest: float
    """The time at which the newest shard was committed, in seconds since the epoch."""


@dataclass(frozen=True)
class Pruning:
    """A plan of what to remove from a state directory."""

    shards: Sequence[StoredShard]
    streams: Sequence[Path]
    """Logs of streams whose selections have ended."""
    leftovers: Sequence[Path]
    """Incomplete files that dead servers left behind."""
    spared: Sequence[StoredShard]
    """Shards that are kept only because open selections use their models."""

    @property
    def bytes(self) -> int:
        """The number of bytes that pruning frees."""
        streams = [file for stream in self.streams for file in stream.rglob("*") if file.is_file()]
        return sum(shard.size for shard in self.shards) + sum(map(_size, [*streams, *self.leftovers]))

    def carry_out(self) -> None:
        """Remove the shards, streams and leftovers."""
        for path in (*(shard.path for shard in self.shards), *self.leftovers):
            path.unlink(missing_ok=True)
        for stream in self.streams:
            shutil.rmtree(stream, ignore_errors=True)


def stored_shards(state: Path, model: str = "") -> list[StoredShard]:
    """Return the shards in a state directory, sorted by log and file name.

    Args:
        state: the state directory.
        model: the model whose shards to return; empty for all.
    """
    found = []
    for log in _directories(state / "scores"):
        if model and _model_of(log.name) != model:
            continue
        for path in log.glob("*/*.parquet"):
            if is_unpublished(path):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # It was removed in the meantime.
                continue
            found.append(StoredShard(log.name, path, status.st_size, status.st_mtime))
    return sorted(found, key=attrgetter("log", "path.name"))


def summaries(shards: Iterable[StoredShard]) -> list[LogSummary]:
    """Return a summary of each log. `shards` must be sorted by log."""
    return [_summary(log, list(of_log)) for log, of_log in groupby(shards, attrgetter("log"))]


def plan_pruning(
    state: Path,
    *,
    model: str = "",
    older_than_seconds: float | None = None,
    max_bytes: int | None = None,
    open_models: Collection[str],
    has_ended: Callable[[str], bool],
) -> Pruning:
    """Return what to remove from a state directory. Nothing that an open selection may need is removed.

    With neither an age nor a size, all shards of `model` are removed, or none if `model` is empty.

    Args:
        state: the state directory.
        model: the model whose shards to remove; empty for all.
        older_than_seconds: remove shards that were committed longer ago than this.
        max_bytes: after that, remove the oldest shards until the others take at most this many bytes.
        open_models: ids of the models that open selections use.
        has_ended: returns whether the selection with an id has ended; False if the id is unknown.
    """
    shards = sorted(stored_shards(state, model), key=attrgetter("modified"))
    if older_than_seconds is None and max_bytes is None and not model:
        shards = []
    removed, spared = _divided(shards, open_models, older_than_seconds, max_bytes)
    return Pruning(
        shards=removed,
        streams=[stream for stream in _directories(state / "streams") if has_ended(stream.name)],
        leftovers=sorted(_leftovers(state)),
        spared=spared,
    )


def _divided(
    oldest_first: Sequence[StoredShard],
    open_models: Collection[str],
    older_than_seconds: float | None,
    max_bytes: int | None,
) -> tuple[list[StoredShard], list[StoredShard]]:
    """Return the shards to remove, and those to spare although they are too old or there is too much."""
    everything = older_than_seconds is None and max_bytes is None
    limit = time.time() - older_than_seconds if older_than_seconds is not None else -1.0
    removed: list[StoredShard] = []
    spared: list[StoredShard] = []
    left = sum(shard.size for shard in oldest_first)
    for shard in oldest_first:
        if not everything and shard.modified >= limit and (max_bytes is None or left <= max_bytes):
            break
        if shard.model in open_models:
            spared.append(shard)
        else:
            removed.append(shard)
            left -= shard.size
    return removed, spared


def _leftovers(state: Path) -> Iterator[Path]:
    limit = time.time() - _LEFT_BEHIND_SECONDS
    for path in state.rglob("*"):
        try:
            if is_unpublished(path) and path.is_file() and path.stat().st_mtime < limit:
                yield path
        except FileNotFoundError:  # It was published or removed in the meantime.
            continue


def _model_of(log: str) -> str:
    return log.partition("+")[0]


def _directories(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _summary(log: str, shards: Sequence[StoredShard]) -> LogSummary:
    rows = [_rows(shard.path) for shard in shards]
    return LogSummary(
        log=log,
        shards=len(shards),
        rows=sum(count for count in rows if count is not None),
        unreadable=rows.count(None),
        bytes=sum(shard.size for shard in shards),
        oldest=min(shard.modified for shard in shards),
        newest=max(shard.modified for shard in shards),
    )


def _rows(path: Path) -> int | None:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
