"""Find the rows of a pool that a selection leaves out, by their ids or by the contents of their images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from topb_scorer.pools.digests_by_id import DigestsById
from topb_scorer.scoring.scored_rows import ScoredRows


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
        self._images = DigestsById.of(digests)
        self._found = np.zeros(len(self._images), bool)
        known = np.flatnonzero(self._images.digests.any(axis=1))
        # Almost all rows of a pool differ from these images in the first half of the digest.
        first_halves = self._images.digests[known].view(np.uint64)[:, 0]
        order = np.argsort(first_halves)
        self._with_content = known[order]
        self._first_halves = first_halves[order]

    def among(self, part: ScoredRows) -> NDArray[np.bool_]:
        """Return bool (n,): whether each row of a part of the log is one of these images."""
        found = np.zeros(len(part.ids), bool)
        if self._images:
            images = self._images.rows_of(part.ids)
            found = images >= 0
            self._found[images[found]] = True
        if len(self._with_content):
            halves = part.digests.view(np.uint64)[:, 0]
            first = np.searchsorted(self._first_halves, halves)
            stop = np.searchsorted(self._first_halves, halves, side="right")
            for row in np.flatnonzero(first < stop).tolist():
                images = self._with_content[first[row] : stop[row]]
                same = images[(self._images.digests[images] == part.digests[row]).all(axis=1)]
                found[row] |= len(same) > 0
                self._found[same] = True
        return found

    def not_found(self) -> int:
        """Return how many of the images were in none of the parts so far."""
        return len(self._found) - int(self._found.sum())
