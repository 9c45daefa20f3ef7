"""Find the images that were labelled before a model was imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topb.image_input import ImageInput
from topb_scorer.errors import InvalidRequestError
from topb_scorer.pools import AllowedRoots, PoolItem, content_digest, read_exclusion
from topb_scorer.pools.pool import NO_DIGEST
from topb_trainer.data.decoding import image_items, open_images, pool_items, usable_images
from topb_trainer.errors import InvalidDataError

_NAMED = 5
"""Number of ids that an error names, at most."""


@dataclass(frozen=True)
class LabelledImages:
    """Images that are labelled already."""

    ids: tuple[str, ...]
    images: NDArray[np.uint8]
    """(L, H, W, 3)."""
    digests: tuple[bytes, ...]
    """The content digest of each image as it was given."""


def read_labelled_images(
    labelled: Path, pool: Path | None, target: ImageInput, *, progress: bool = False
) -> LabelledImages:
    """Read the labelled images from a pool of them, or find those of a list of ids in another pool.

    Args:
        labelled: a pool of any kind, whose labels are not read; or a Parquet file with a column `id` and
            possibly `digest`, as `topb select --exclude-uri` takes it.
        pool: where the images of such a list are.
        target: the size of the images.
        progress: whether to show a progress bar.

    Raises:
        InvalidDataError: an image cannot be used, an id occurs twice, or the images of a list are missing.
        ScorerError: a path does not exist, or cannot be read.
    """
    try:
        opened = open_images(labelled)
    except InvalidRequestError as error:
        if error.reason != "POOL_COLUMN_MISSING":
            raise
        return _listed(labelled, pool, target, progress=progress)
    items = _distinct(labelled, image_items(opened))
    return LabelledImages(*usable_images(labelled, items, opened.rows, target, "labelled", progress=progress))


def _listed(labelled: Path, pool: Path | None, target: ImageInput, *, progress: bool) -> LabelledImages:
    listed = read_exclusion(str(labelled), "id", AllowedRoots.anywhere())
    if pool is None:
        raise InvalidDataError(
            f"{labelled} lists {len(listed)} ids without images, but core_set needs the features of "
            "labelled images; give the pool that has them with --images, or give the images themselves. "
            "Selections can leave out ids without images: topb select --exclude-uri",
            reason="LABELLED_WITHOUT_IMAGES",
        )
    opened = open_images(pool)
    missing = dict(listed)
    items = _distinct(pool, _taken(pool_items(opened), listed, missing))
    found = usable_images(pool, items, len(listed), target, "labelled", progress=progress)
    if missing:
        names = ", ".join(list(missing)[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise InvalidDataError(
            f"{pool} lacks {len(missing)} of the {len(listed)} images that {labelled} lists, neither by id "
            f"nor by content: {names}; give a pool that has them, or leave them out of the list",
            reason="LABELLED_WITHOUT_IMAGES",
        )
    return LabelledImages(*found)


def _taken(
    items: Iterator[PoolItem], listed: Mapping[str, bytes], missing: dict[str, bytes]
) -> Iterator[PoolItem]:
    """Yield the items that are listed, by id or by content, and take them out of `missing`."""
    ids_of = {digest: id_ for id_, digest in listed.items() if digest != NO_DIGEST}
    for item in items:
        by_content = ids_of.get(content_digest(item.image)) if ids_of else None
        if item.id in listed or by_content is not None:
            missing.pop(item.id, None)
            if by_content is not None:
                missing.pop(by_content, None)
            yield item


def _distinct(path: Path, items: Iterator[PoolItem]) -> Iterator[PoolItem]:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise InvalidDataError(
                f"{path}: the id {item.id!r} occurs twice; expected distinct ids",
                reason="DUPLICATE_ID",
                id=item.id,
            )
        seen.add(item.id)
        yield item
