"""Counts distinct ids in memory that does not grow with their number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

# 128 bits: among 10^9 ids the odds of two sharing a digest are below 10^-20.
_DIGEST_BYTES = 16
_DIGESTS_A_PARTITION = 1 << 17


class DistinctIds:
    """Spills digests of ids to files, one a partition of the digests, and counts each file by itself."""

    def __init__(self, scratch: Path, expected: int) -> None:
        """Opens the partitions in `scratch`, a directory that the caller removes.

        Args:
            scratch: where the digests are spilled, 16 bytes an id.
            expected: how many ids there will be at most, duplicates included.
        """
        partitions = min(max(1, expected // _DIGESTS_A_PARTITION), 512)
        self._files: list[BinaryIO] = [(scratch / f"{i}.digests").open("w+b") for i in range(partitions)]

    def __enter__(self) -> DistinctIds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def add(self, ids: Iterable[str]) -> None:
        """Takes ids, in any order, any number of times."""
        files = self._files
        for id_ in ids:
            digest = hashlib.blake2b(id_.encode(), digest_size=_DIGEST_BYTES).digest()
            files[int.from_bytes(digest[:4], "big") % len(files)].write(digest)

    def count(self) -> int:
        """How many ids were taken, each counted once."""
        distinct = 0
        for file in self._files:
            file.flush()
            file.seek(0)
            digests = np.frombuffer(file.read(), np.dtype(f"V{_DIGEST_BYTES}"))
            halves = digests.view(np.uint64).reshape(-1, 2)
            halves = halves[np.lexsort((halves[:, 1], halves[:, 0]))]
            distinct += len(halves) and 1 + int((halves[1:] != halves[:-1]).any(axis=1).sum())
        return distinct
