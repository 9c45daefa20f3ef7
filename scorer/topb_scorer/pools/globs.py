"""Globs over folders and prefixes: `*`, `?` and `[…]` within a segment, `**` for any number of segments."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from topb_scorer.pools.locations import Place, S3Path
from topb_scorer.pools.storage import Kind, Storage

_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class Glob:
    """The files below a folder whose paths match."""

    folder: Place
    segments: tuple[str, ...]

    @property
    def is_deep(self) -> bool:
        """Whether files in folders below the folder can match."""
        return len(self.segments) > 1 or self.segments[0] == "**"

    def matches(self, id_: str) -> bool:
        """Whether the file at `id_` below the folder matches."""
        return _match(self.segments, tuple(id_.split("/")))


def glob_of(place: Place, storage: Storage) -> Glob | None:
    """The glob that a place with wildcards is; None where it has none.

    What is there as it is written is no pattern: of a local path each segment, on S3 the whole.
    """
    if isinstance(place, S3Path):
        segments = tuple(place.key.split("/"))
        first = next((i for i, segment in enumerate(segments) if _WILDCARDS & set(segment)), None)
        if first is None or storage.kind_of(place) is not Kind.NOTHING:
            return None
        return Glob(S3Path(place.bucket, "/".join(segments[:first])), segments[first:])
    parts = place.parts
    for i, part in enumerate(parts):
        if _WILDCARDS & set(part) and storage.kind_of(Path(*parts[: i + 1])) is Kind.NOTHING:
            return Glob(Path(*parts[:i]), parts[i:])
    return None


def _match(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        # What ends in ** matches every file below.
        return len(pattern) == 1 or any(_match(pattern[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _match(pattern[1:], path[1:])
