"""List and prune the score logs and feature logs in a state directory.

Removing a shard never changes a result, because a selection that needs it computes it again. To save that
work, pruning keeps all shards of the models and encoders that open selections use. The log of a stream is
removed only after its selection has ended, because a stream cannot be read again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from topb_scorer.durable import is_unpublished
from topb_scorer.scoring.model_logs import FEATURES, SCORES, encoder_of

Kind = Literal["features", "scores"]
KINDS: tuple[Kind, ...] = (FEATURES, SCORES)

# Files that are being written and files that a dead server left behind differ only in age.
_LEFT_BEHIND_SECONDS = 3600.0


@dataclass(frozen=True)
class StoredShard:
    """One file of a log."""

    kind: Kind
    log: str
    """The model that scored the shard, or the encoder that gave its features."""
    path: Path
    size: int
    """The size in bytes."""
    used: float
    """The time at which the shard was last committed or read, in seconds since the epoch."""


@dataclass(frozen=True)
class LogSummary:
    """A summary of one log."""

    kind: Kind
    log: str
    """The model that scored the shards, or the encoder that gave their features."""
    shards: int
    rows: int
    """The number of rows in the readable shards."""
    unreadable: int
    """The number of shards whose rows cannot be counted."""
    bytes: int
    first_used: float
    """The time since which no shard was used longer ago, in seconds since the epoch."""
    last_used: float
    """The time at which a shard was last committed or read, in seconds since the epoch."""


@dataclass(frozen=True)
class Pruning:
    """A plan of what to remove from a state directory."""

    shards: Sequence[StoredShard]
    streams: Sequence[Path]
    """Logs of streams whose selections have ended."""
    leftovers: Sequence[Path]
    """Incomplete files that dead servers left behind."""
    spared: Sequence[StoredShard]
    """Shards that are kept only because open selections use their models or encoders."""

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


def stored_shards(state: Path, log_id: str = "") -> list[StoredShard]:
    """Return the shards in a state directory, sorted by kind, log and file name.

    Args:
        state: the state directory.
        log_id: the model or the encoder whose shards to return; empty for all.
    """
    found = []
    logs = [(kind, log) for kind in KINDS for log in _directories(state / kind)]
    for kind, log in logs:
        if log_id and log.name != log_id:
            continue
        for path in log.glob("*/*.parquet"):
            if is_unpublished(path):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # It was removed in the meantime.
                continue
            found.append(StoredShard(kind, log.name, path, status.st_size, status.st_mtime))
    return sorted(found, key=attrgetter("kind", "log", "path.name"))


def summaries(shards: Iterable[StoredShard]) -> list[LogSummary]:
    """Return a summary of each log. `shards` must be sorted by kind and log."""
    return [_summary(list(of_log)) for _, of_log in groupby(shards, attrgetter("kind", "log"))]


def plan_pruning(
    state: Path,
    *,
    log_id: str = "",
    older_than_seconds: float | None = None,
    max_bytes: int | None = None,
    open_models: Collection[str],
    has_ended: Callable[[str], bool],
) -> Pruning:
    """Return what to remove from a state directory. Nothing that an open selection may need is removed.

    With neither an age nor a size, all shards of `log_id` are removed, or none if it is empty.

    Args:
        state: the state directory.
        log_id: the model or the encoder whose shards to remove; empty for all.
        older_than_seconds: remove shards that were last used longer ago than this.
        max_bytes: after that, remove the least recently used shards until the others take at most this many
            bytes.
        open_models: ids of the models that open selections use. Their encoders are in use as well.
        has_ended: returns whether the selection with an id has ended; False if the id is unknown.
    """
    shards = sorted(stored_shards(state, log_id), key=attrgetter("used"))
    if older_than_seconds is None and max_bytes is None and not log_id:
        shards = []
    in_use = {*open_models, *(encoder_of(state, model) for model in open_models)}
    removed, spared = _divided(shards, in_use, older_than_seconds, max_bytes)
    return Pruning(
        shards=removed,
        streams=[stream for stream in _directories(state / "streams") if has_ended(stream.name)],
        leftovers=sorted(_leftovers(state)),
        spared=spared,
    )


def _divided(
    least_recently_used_first: Sequence[StoredShard],
    in_use: Collection[str],
    older_than_seconds: float | None,
    max_bytes: int | None,
) -> tuple[list[StoredShard], list[StoredShard]]:
    """Return the shards to remove, and those to spare although they are too old or there is too much."""
    everything = older_than_seconds is None and max_bytes is None
    limit = time.time() - older_than_seconds if older_than_seconds is not None else -1.0
    removed: list[StoredShard] = []
    spared: list[StoredShard] = []
    left = sum(shard.size for shard in least_recently_used_first)
    for shard in least_recently_used_first:
        if not everything and shard.used >= limit and (max_bytes is None or left <= max_bytes):
            break
        if shard.log in in_use:
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


def _directories(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _summary(shards: Sequence[StoredShard]) -> LogSummary:
    rows = [_rows(shard.path) for shard in shards]
    return LogSummary(
        kind=shards[0].kind,
        log=shards[0].log,
        shards=len(shards),
        rows=sum(count for count in rows if count is not None),
        unreadable=rows.count(None),
        bytes=sum(shard.size for shard in shards),
        first_used=min(shard.used for shard in shards),
        last_used=max(shard.used for shard in shards),
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
