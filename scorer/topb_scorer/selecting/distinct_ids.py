"""Count distinct ids in memory that does not grow with their number, by means of temporary files."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# 128 bits: the probability that any two of 10^9 ids have the same digest is below 10^-20.
_DIGEST_BYTES = 16
_DIGESTS_A_PARTITION = 1 << 17


class DistinctIds:
    """Writes digests of ids to files, partitioned by digest, and counts the distinct ones file by file."""

    def __init__(self, scratch: Path, expected: int) -> None:
        """Open the files.

        Args:
            scratch: a directory for the files, which take 16 bytes per id. The caller removes it.
            expected: the approximate number of ids, duplicates included.
        """
        partitions = min(max(1, expected // _DIGESTS_A_PARTITION), 512)
        self._files: list[BinaryIO] = [(scratch / f"{i}.digests").open("w+b") for i in range(partitions)]
        # The seeds are random so that nobody can prepare ids with the same digest.
        self._seeds = [np.uint64(secrets.randbits(64)) for _ in range(2)]

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def add(self, ids: Sequence[str]) -> None:
        """Add ids in any order, any number of times."""
        digests = self._digests(ids)
        partition = digests[:, 0] % np.uint64(len(self._files))
        for i, file in enumerate(self._files):
            file.write(digests[partition == i].tobytes())

    def count(self) -> int:
        """Return the number of distinct ids that were added."""
        distinct = 0
        for file in self._files:
            file.flush()
            file.seek(0)
            halves = np.frombuffer(file.read(), np.uint64).reshape(-1, _DIGEST_BYTES // 8)
            distinct += distinct_rows(halves)
        return distinct

    def _digests(self, ids: Sequence[str]) -> NDArray[np.uint64]:
        """Return uint64 (n, 2): two hashes of each id. Ids of the same length are hashed together."""
        array = pa.array(ids, pa.large_string())
        _, offsets_buffer, bytes_buffer = array.buffers()
        digests = np.empty((len(ids), 2), np.uint64)
        if not len(ids):
            return digests
        starts = np.frombuffer(offsets_buffer, np.int64, len(ids) + 1)
        utf8 = np.frombuffer(bytes_buffer or b"", np.uint8)
        lengths = np.diff(starts)
        for length in np.unique(lengths).tolist():
            rows = np.flatnonzero(lengths == length)
            padded = np.zeros((len(rows), -(-length // 8) * 8), np.uint8)
            padded[:, :length] = utf8[starts[rows, None] + np.arange(length)]
            words = padded.view(np.uint64)
            for column, seed in enumerate(self._seeds):
                # The length is part of the hash, so that padding cannot be mistaken for a character.
                digest = _mixed(np.full(len(rows), seed ^ np.uint64(length)))
                for i in range(words.shape[1]):
                    digest = _mixed(digest ^ words[:, i])
                digests[rows, column] = digest
        return digests


def distinct_rows(halves: NDArray[np.uint64]) -> int:
    """Return the number of distinct rows of uint64 (n, 2)."""
    first = np.sort(halves[:, 0])
    again = first[1:][first[1:] == first[:-1]]
    if not len(again):
        return len(first)
    # Only rows with the same first half can be equal, so only those are sorted by both halves.
    among = np.searchsorted(again, halves[:, 0])
    doubtful = halves[again[np.minimum(among, len(again) - 1)] == halves[:, 0]]
    doubtful = doubtful[np.lexsort((doubtful[:, 1], doubtful[:, 0]))]
    return len(halves) - int((doubtful[1:] == doubtful[:-1]).all(axis=1).sum())


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the finaliser of SplitMix64, a bijection (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed
