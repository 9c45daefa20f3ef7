"""Map the ids of many images to their content digests, in columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from topb_scorer.pools.pool import DIGEST_BYTES, NO_DIGEST

T = TypeVar("T")

_AT_ONCE = 1 << 16


class DigestsById(Mapping[str, bytes]):
    """An immutable mapping from ids to content digests. An image takes 40 bytes and its id.

    The order is that of the ids. Of an id that occurs several times, the last digest counts.

    Attributes:
        digests: uint8 (n, 16): the digests; `NO_DIGEST` for those that are not known.
    """

    def __init__(self, ids: pa.Array | pa.ChunkedArray, digests: NDArray[np.uint8] | None = None) -> None:
        """Create the mapping.

        Args:
            ids: n strings without nulls.
            digests: uint8 (n, 16); None if none is known.
        """
        chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
        large = [chunk.cast(pa.large_string()) for chunk in chunks]
        self._ids = pa.concat_arrays(large) if large else pa.array([], pa.large_string())
        self.digests = np.zeros((len(self._ids), DIGEST_BYTES), np.uint8) if digests is None else digests
        self._sort()
        repeated = self._repeated()
        if len(repeated):
            kept = np.ones(len(self._ids), bool)
            kept[repeated] = False
            self._ids, self.digests = self._ids.filter(pa.array(kept)), self.digests[kept]
            self._sort()

    @classmethod
    def of(cls, digests: Mapping[str, bytes]) -> DigestsById:
        """Return the same mapping, in columns. An empty digest is not known."""
        return digests if isinstance(digests, cls) else cls.pairs(digests, digests.values())

    @classmethod
    def pairs(cls, ids: Iterable[str], digests: Collection[bytes] = ()) -> DigestsById:
        """Return the mapping of ids to as many digests, or to none. An empty digest is not known."""
        strings = pa.large_string()
        column = pa.chunked_array([pa.array(part, strings) for part in _parts(ids)], strings)
        return cls(column, as_digests(digests) if digests else None)

    def updated(self, other: DigestsById) -> DigestsById:
        """Return a mapping with the images of both. The digests of `other` go first."""
        if not (self and other):
            return self or other
        ids = pa.chunked_array([self._ids, other._ids])
        return DigestsById(ids, np.concatenate([self.digests, other.digests]))

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return intp (m,): the row of each of m ids in this mapping, −1 if it is not there."""
        hashes = _hashes(ids)
        rows = np.full(len(hashes), -1, np.intp)
        at = np.searchsorted(self._hashes, hashes)
        open_ = np.flatnonzero(at < len(self._hashes))
        while True:
            # Different ids may have the same hash. Those with an equal hash are compared, one after another.
            open_ = open_[self._hashes[np.minimum(at[open_], len(self._hashes) - 1)] == hashes[open_]]
            if not len(open_):
                return rows
            found = self._order[at[open_]]
            asked = pa.array([ids[i] for i in open_.tolist()], pa.large_string())
            same = pc.equal(self._ids.take(pa.array(found)), asked).to_numpy(zero_copy_only=False)
            rows[open_[same]] = found[same]
            open_ = open_[~same]
            at[open_] += 1
            open_ = open_[at[open_] < len(self._hashes)]

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return _strings(self._ids)

    def __getitem__(self, id_: str) -> bytes:
        (row,) = self.rows_of([id_]).tolist()
        if row < 0:
            raise KeyError(id_)
        digest: bytes = self.digests[row].tobytes()
        return digest

    def _sort(self) -> None:
        hashes = _hashes(_strings(self._ids))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def _repeated(self) -> NDArray[np.intp]:
        """Return the rows whose ids occur again later."""
        equal = self._hashes[1:] == self._hashes[:-1]
        doubtful = np.unique(np.concatenate([self._order[1:][equal], self._order[:-1][equal]]))
        last: dict[str, int] = {}
        repeated = []
        for row, id_ in zip(doubtful.tolist(), _strings(self._ids.take(pa.array(doubtful))), strict=True):
            if id_ in last:
                repeated.append(last[id_])
            last[id_] = row
        return np.array(repeated, np.intp)


def as_digests(digests: Iterable[bytes | None]) -> NDArray[np.uint8]:
    """Return uint8 (n, 16): n digests, `NO_DIGEST` for those that are empty or None."""
    content = b"".join(b"".join(digest or NO_DIGEST for digest in part) for part in _parts(digests))
    return np.frombuffer(content, np.uint8).reshape(-1, DIGEST_BYTES)


def _parts(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield the values in lists, because all at once take several times the memory of the columns."""
    rest = iter(values)
    return iter(lambda: list(islice(rest, _AT_ONCE)), [])


def _strings(ids: pa.Array) -> Iterator[str]:
    for start in range(0, len(ids), _AT_ONCE):
        yield from ids.slice(start, _AT_ONCE).to_pylist()


def _hashes(ids: Iterable[str]) -> NDArray[np.int64]:
    # Python's hash of a string is seeded at random, so that nobody can prepare ids with the same hash.
    return np.fromiter(map(hash, ids), np.int64)
