"""All score logs of a state: what is there, whether it is whole, and making room.

A shard may be removed at any time without changing a result: whoever misses it scores it again. Pruning
spares that work all the same: of a model that an open selection is pinned to nothing is removed. A stream is
removed only once its selection is known to have ended, which none ever takes back.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from topb_scorer.durable import is_unpublished
from topb_scorer.scoring.score_log import is_as_committed

# What is being written now bears the mark of what was left behind too: only its age tells them apart.
_LEFT_BEHIND_SECONDS = 3600.0


@dataclass(frozen=True)
class ShelvedShard:
    """One file of a score log."""

    log: str
    """The model, with `+features` where the log holds them."""
    path: Path
    size: int
    """In bytes."""
    modified: float
    """When it was committed, in seconds since the epoch."""

    @property
    def model(self) -> str:
        """Id of the model that scored it."""
        return self.log.partition("+")[0]

    @property
    def identity(self) -> str:
        """Of the shard."""
        return self.path.name.rpartition("-")[0]


@dataclass(frozen=True)
class LogSummary:
    """What one score log holds."""

    log: str
    shards: int
    rows: int
    """Of the shards that can be read."""
    unreadable: int
    """Shards whose rows cannot be counted."""
    bytes: int
    oldest: float
    """When its oldest shard was committed, in seconds since the epoch."""
    newest: float


@dataclass(frozen=True)
class Pruning:
    """What pruning removes, or spares."""

    shards: Sequence[ShelvedShard]
    streams: Sequence[Path]
    """Logs of streams whose selections have ended."""
    leftovers: Sequence[Path]
    """Half-written files of servers that died."""
    spared: Sequence[ShelvedShard]
    """Shards that would have gone, were it not for open selections by their models."""

    @property
    def bytes(self) -> int:
        """How much room it makes."""
        streams = [file for stream in self.streams for file in stream.rglob("*") if file.is_file()]
        return sum(shard.size for shard in self.shards) + sum(map(_size, [*streams, *self.leftovers]))

    def carry_out(self) -> None:
        """Removes what is to be removed."""
        for path in (*(shard.path for shard in self.shards), *self.leftovers):
            path.unlink(missing_ok=True)
        for stream in self.streams:
            shutil.rmtree(stream, ignore_errors=True)


class ScoreShelf:
    """The score logs below a state directory."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def shards(self, model: str = "") -> list[ShelvedShard]:
        """All shards, or those by one model, by log and file name."""
        return sorted(self._shards(model), key=lambda shard: (shard.log, shard.path.name))

    def summaries(self, model: str = "") -> list[LogSummary]:
        """What each log holds."""
        by_log: dict[str, list[ShelvedShard]] = {}
        for shard in self.shards(model):
            by_log.setdefault(shard.log, []).append(shard)
        return [_summary(log, shards) for log, shards in by_log.items()]

    def altered(self, model: str = "") -> Iterator[ShelvedShard]:
        """Shards that are torn or not as they were committed; reads them all."""
        for shard in self.shards(model):
            if not is_as_committed(shard.path):
                yield shard

    def plan_pruning(
        self,
        *,
        model: str = "",
        older_than_seconds: float | None = None,
        max_bytes: int | None = None,
        open_models: Iterable[str],
        has_ended: Callable[[str], bool],
    ) -> Pruning:
        """What to remove: nothing that an open selection needs.

        Args:
            model: only its shards; empty: those of all.
            older_than_seconds: of the shards, those committed longer ago than this.
            max_bytes: then the oldest shards, until those that are left take no more than this. With neither
                an age nor a size all shards of `model` go; without a model none.
            open_models: that selections which have not ended are pinned to.
            has_ended: whether the selection of that id has; False where that is not known.
        """
        busy = set(open_models)
        wanted = self._wanted(model, older_than_seconds, max_bytes)
        return Pruning(
            shards=[shard for shard in wanted if shard.model not in busy],
            streams=[stream for stream in _directories(self._state / "streams") if has_ended(stream.name)],
            leftovers=self._leftovers(),
            spared=[shard for shard in wanted if shard.model in busy],
        )

    def _shards(self, model: str) -> Iterator[ShelvedShard]:
        for log in _directories(self._state / "scores"):
            if model and log.name.partition("+")[0] != model:
                continue
            for path in log.glob("*/*.parquet"):
                if is_unpublished(path):
                    continue
                try:
                    stamp = path.stat()
                except FileNotFoundError:  # removed meanwhile
                    continue
                yield ShelvedShard(log.name, path, stamp.st_size, stamp.st_mtime)

    def _wanted(
        self, model: str, older_than_seconds: float | None, max_bytes: int | None
    ) -> list[ShelvedShard]:
        oldest_first = sorted(self.shards(model), key=lambda shard: shard.modified)
        if older_than_seconds is None and max_bytes is None:
            return oldest_first if model else []
        limit = time.time() - older_than_seconds if older_than_seconds is not None else -1.0
        wanted = [shard for shard in oldest_first if shard.modified < limit]
        if max_bytes is not None:
            left = oldest_first[len(wanted) :]
            size = sum(shard.size for shard in left)
            for shard in left:
                if size <= max_bytes:
                    break
                wanted.append(shard)
                size -= shard.size
        return wanted

    def _leftovers(self) -> list[Path]:
        limit = time.time() - _LEFT_BEHIND_SECONDS
        found = []
        for path in self._state.rglob("*"):
            try:
                if is_unpublished(path) and path.is_file() and path.stat().st_mtime < limit:
                    found.append(path)
            except FileNotFoundError:  # published or removed meanwhile
                continue
        return sorted(found)


def _directories(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _summary(log: str, shards: Sequence[ShelvedShard]) -> LogSummary:
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
