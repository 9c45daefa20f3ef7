"""Find the rows of a pool that a selection leaves out, by their ids or by the contents of their images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from topb_scorer.pools.pool import NO_DIGEST
from topb_scorer.scoring.score_log import ScoredRows


class ExcludedImages:
    """Images to leave out of a pool, with a count of those that the pool does not have.

    A row is one of these images if it has the id or the content digest of one of them. So an image is found
    under another id too, for example after its file was moved.
    """

    def __init__(self, digests: Mapping[str, bytes]) -> None:
        """Describe the images.

        Args:
            digests: the content digest of each image by its id; `NO_DIGEST` or empty if it is not known.
        """
        self._digests = digests
        self._contents = frozenset(digests.values()) - {NO_DIGEST, b""}
        # Almost all rows of a pool differ from these images in the first half of the digest.
        self._first_halves = np.sort(np.frombuffer(b"".join(d[:8] for d in self._contents), np.uint64))
        self._found_ids: set[str] = set()
        self._found_contents: set[bytes] = set()

    def among(self, part: ScoredRows) -> NDArray[np.bool_]:
        """Return bool (n,): whether each row of a part of the log is one of these images."""
        found = np.zeros(len(part.ids), bool)
        if self._digests:
            found[:] = [id_ in self._digests for id_ in part.ids]
            self._found_ids.update(part.ids_of(np.flatnonzero(found)))
        if self._contents:
            halves = part.digests.view(np.uint64)[:, 0]
            nearest = np.searchsorted(self._first_halves[:-1], halves)
            for row in np.flatnonzero(self._first_halves[nearest] == halves).tolist():
                digest = part.digests[row].tobytes()
                if digest in self._contents:
                    found[row] = True
                    self._found_contents.add(digest)
        return found

    def not_found(self) -> int:
        """Return how many of the images were in none of the parts so far."""
        return sum(
            id_ not in self._found_ids and digest not in self._found_contents
            for id_, digest in self._digests.items()
        )
