"""Decode images of a pool with the decoder of the scorer. This module needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from topb.image_input import ImageInput
from topb_scorer import imaging
from topb_scorer.imaging import SkippedImageError
from topb_scorer.pools import AllowedRoots, OpenPool, PoolItem, Unreadable, content_digest, open_pool
from topb_scorer.pools.vectors import VectorLayout, VectorShard
from topb_scorer.scoring.cores import usable_cores
from topb_trainer.data.mapped import ImageFile, RowFile
from topb_trainer.data.sets import EncodedImage, Target
from topb_trainer.errors import InvalidDataError
from topb_trainer.runtime.progress import bar

_DECODE_BATCH = 256


def open_images(path: Path) -> OpenPool:
    """Open a pool of any kind, without reading images.

    Raises:
        ScorerError: the path does not exist, or it cannot be read as a pool.
    """
    # Training reads with the rights of its caller, so every root is allowed.
    return open_pool(str(path), roots=AllowedRoots.anywhere())


def pool_items(pool: OpenPool, target: Target | None = None) -> Iterator[PoolItem]:
    """Return an iterator over the rows of all shards.

    Vectors or features, if the target asks for them, take the place of images.
    """
    # Features that are not kept yet are computed here, before a caller shows the progress of reading them.
    if target is not None and not isinstance(target, (ImageInput, VectorLayout)):
        return target.encoded(pool)
    if pool.vectors is None:
        return (item for shard in pool.image_shards for item in shard.items())
    return _vector_items(pool)


def _vector_items(pool: OpenPool) -> Iterator[PoolItem]:
    for vectors in pool.shards:
        assert isinstance(vectors, VectorShard)
        for block in vectors.blocks(with_probabilities=False):
            for row, id_ in enumerate(block.ids):
                yield PoolItem(id_, block.faults.get(row) or cast("Any", block.vectors[row]))


def check_kind(path: Path, pool: OpenPool, target: Target) -> None:
    """Check that a pool has rows of the same kind as the labelled set.

    Raises:
        InvalidDataError: with reason VECTOR_WIDTH or ROWS_DIFFER.
    """
    wanted = target if isinstance(target, VectorLayout) else None
    if (pool.vectors is None) != (wanted is None):
        raise InvalidDataError(
            f"{path} has {pool.vectors or 'images'}, but the labelled set has {wanted or 'images'}; expected "
            "the same in all sets",
            reason="ROWS_DIFFER",
        )
    if pool.vectors and wanted and pool.vectors.width not in (0, wanted.width):
        raise InvalidDataError(
            f"{path} has vectors of {pool.vectors.width} numbers, but those of the labelled set have "
            f"{wanted.width}; expected vectors of the same encoder",
            reason="VECTOR_WIDTH",
        )


def digest_of(item: PoolItem) -> bytes:
    """Return the content digest of a row. That of features is the digest of their image."""
    image: Any = item.image
    return image.digest if isinstance(image, EncodedImage) else content_digest(image)


def image_items(pool: OpenPool, target: Target | None = None) -> Iterator[PoolItem]:
    """Return an iterator over the items of a labelled set, except files without an image suffix."""
    return (
        item
        for item in pool_items(pool, target)
        if not (isinstance(item.image, Unreadable) and item.image.reason == "FILE_NOT_AN_IMAGE")
    )


def _digested(items: Iterable[PoolItem], digests: dict[str, bytes]) -> Iterator[PoolItem]:
    """Yield the items, and add the content digest of each to `digests` by its id."""
    for item in items:
        digests[item.id] = digest_of(item)
        yield item


def usable_images(
    path: Path, items: Iterable[PoolItem], rows: int, target: Target, name: str, *, progress: bool = False
) -> tuple[tuple[str, ...], NDArray[Any], tuple[bytes, ...]]:
    """Return ids, images (N, H, W, 3) and content digests of rows that must all be images, or vectors (N, D).

    Args:
        path: where the rows come from, for errors.
        items: the rows, of distinct ids.
        rows: how many there are, for the progress bar.
        target: the size of the images or vectors.
        name: what they are called, such as "labelled".
        progress: whether to show a progress bar.

    Raises:
        InvalidDataError: an image cannot be used, or there is none.
    """
    of_id: dict[str, bytes] = {}
    ids, images, skipped = decode(_digested(items, of_id), rows, target, name, progress)
    kind = "vector" if isinstance(target, VectorLayout) else "image"
    if skipped:
        id_, error = next(iter(skipped.items()))
        others = f" ({len(skipped) - 1} others as well)" if len(skipped) > 1 else ""
        raise InvalidDataError(
            f"{path}: the {name} {kind} {id_} cannot be used: {error}{others}; repair it or leave it out",
            reason="IMAGE_UNUSABLE",
            id=id_,
            image_reason=error.reason,
        )
    if not ids:
        raise InvalidDataError(f"{path} holds no {name} {kind}", reason="NO_IMAGES")
    return ids, images, tuple(of_id[id_] for id_ in ids)


def first_images(path: Path, count: int, target: ImageInput) -> NDArray[np.uint8]:
    """Return the first images of a pool that can be decoded, (n, H, W, 3), at most `count`.

    Raises:
        InvalidDataError: none can be decoded.
        ScorerError: the path does not exist, or it cannot be read as a pool.
    """
    decoded = (_load(item, target) for item in pool_items(open_images(path)))
    found = list(islice((image for image in decoded if not isinstance(image, SkippedImageError)), count))
    if not found:
        raise InvalidDataError(f"{path} holds no image that can be decoded", reason="NO_IMAGES")
    return np.stack(found)


def decode(
    items: Iterable[PoolItem], rows: int, target: Target, name: str, progress: bool
) -> tuple[tuple[str, ...], NDArray[Any], dict[str, SkippedImageError]]:
    """Return ids and images (N, H, W, 3) or vectors (N, D) in the order of `items`, and the errors of other
    items by id."""
    ids: list[str] = []
    skipped: dict[str, SkippedImageError] = {}
    remaining = iter(bar(items, f"decoding {name}", "image", show=progress, total=rows))
    with (
        ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as decoders,
        _file_of(target) as images,
    ):
        while batch := list(islice(remaining, _DECODE_BATCH)):
            decoded = decoders.map(lambda item: _load(item, target), batch)
            for item, image in zip(batch, decoded, strict=True):
                if isinstance(image, SkippedImageError):
                    skipped[item.id] = image
                else:
                    images.append(image)
                    ids.append(item.id)
        return tuple(ids), images.mapped(), skipped


def _file_of(target: Target) -> RowFile:
    if isinstance(target, ImageInput):
        return ImageFile(target.height, target.width)
    return RowFile((target.width if isinstance(target, VectorLayout) else target.feature_size,), np.float32)


def _load(item: PoolItem, target: Target) -> NDArray[Any] | SkippedImageError:
    if isinstance(item.image, Unreadable):
        return SkippedImageError(item.image.reason, item.image.detail)
    if not isinstance(target, ImageInput):
        given: Any = item.image
        return cast("NDArray[Any]", given.features if isinstance(given, EncodedImage) else given)
    try:
        return imaging.load(item.image, target)
    except SkippedImageError as error:
        return error
