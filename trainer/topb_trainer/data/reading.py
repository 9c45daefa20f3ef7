"""Labelled images, unlabelled pool and test images in memory, decoded by the scorer's own code."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topb.image_input import ImageInput, ResizeRule
from topb_scorer import imaging
from topb_scorer.imaging import SkippedImageError
from topb_scorer.pools import AllowedRoots, OpenPool, PoolItem, Unreadable, open_pool
from topb_scorer.scoring.cores import usable_cores
from topb_trainer.config import ImageConfig
from topb_trainer.data.labels import folder_class_name, parquet_files, read_class_names
from topb_trainer.data.sets import LabelledSet, UnlabelledSet
from topb_trainer.errors import InvalidDataError
from topb_trainer.models.resnet import SMALL_IMAGE
from topb_trainer.runtime.progress import bar

LARGE_IMAGE_INPUT = 224
"""Pixels: the size that larger images are brought to, as is usual for the ImageNet stem."""

_DECODED_TOGETHER = 256


def open_images(path: Path) -> OpenPool:
    """Opens Parquet or an image folder without reading an image.

    Raises:
        ScorerError: nothing is there, or it cannot be read as a pool.
    """
    # A training run reads with its caller's own rights.
    return open_pool(str(path), roots=AllowedRoots.anywhere())


def image_input(config: ImageConfig, labelled: Path) -> ImageInput:
    """Returns what the model will take for one image: as configured, else by the labelled images' sizes."""
    resize = ResizeRule(config.resize)
    if config.height is not None and config.width is not None:
        return ImageInput(config.height, config.width, resize)
    size = _common_small_size(open_images(labelled))
    return ImageInput(*(size or (LARGE_IMAGE_INPUT, LARGE_IMAGE_INPUT)), resize)


def read_labelled(path: Path, target: ImageInput, *, progress: bool = False) -> LabelledSet:
    """Reads Parquet (id, label, and image or path) or an image folder (class/file.jpg) to train on.

    Raises:
        InvalidDataError: a label or an image cannot be used, or there are fewer than two images or classes.
        ScorerError: nothing is there, or it cannot be read as a pool.
    """
    ids, images, names, declared = _read_with_labels(path, target, None, "labelled", progress)
    classes = declared or sorted(set(names.values()), key=_numbers_by_value)
    labelled = _labelled_set(ids, images, names, classes)
    if len(labelled.ids) < 2 or len(classes) < 2:
        raise InvalidDataError(
            f"{path} holds {len(labelled.ids)} labelled images of {len(classes)} classes; "
            "at least two of each are needed",
            reason="TOO_FEW_LABELLED",
        )
    return labelled


def read_test(
    path: Path, target: ImageInput, classes: Sequence[str], *, progress: bool = False
) -> LabelledSet:
    """Reads a test set, laid out like a labelled one, of a model of `classes`; other classes are labelled −1.

    Raises:
        InvalidDataError: a label or an image cannot be used, there are none, or none is of these classes.
        ScorerError: nothing is there, or it cannot be read as a pool.
    """
    ids, images, names, _ = _read_with_labels(path, target, classes, "test", progress)
    test = _labelled_set(ids, images, names, classes)
    if not (test.labels >= 0).any():
        raise InvalidDataError(
            f"{path} holds {len(test.ids)} test images, none of them of the labelled classes "
            f"{', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}",
            reason="TEST_CLASSES",
        )
    return test


def read_pool(path: Path, target: ImageInput, labelled: Set[str], *, progress: bool = False) -> UnlabelledSet:
    """Reads a pool as the scorer does, without the `labelled` ids; what cannot be decoded is counted.

    Raises:
        InvalidDataError: nothing unlabelled is left.
        ScorerError: nothing is there, or it cannot be read as a pool.
    """
    pool = open_images(path)
    left_out: Counter[str] = Counter()
    fresh = _unlabelled(_items(pool), labelled, left_out)
    ids, images, skipped = _decode(fresh, pool.rows, target, "pool", progress)
    if not ids:
        raise InvalidDataError(
            f"{path} holds {pool.rows} rows and no unlabelled image: {left_out['labelled']} are labelled, "
            f"{len(skipped)} could not be decoded",
            reason="POOL_EMPTY",
        )
    reasons = Counter(error.reason for error in skipped.values())
    return UnlabelledSet(
        ids, images, left_out["labelled"], left_out["duplicate"], dict(sorted(reasons.items()))
    )


def _items(pool: OpenPool) -> Iterator[PoolItem]:
    for shard in pool.shards:
        yield from shard.items()


def _images(pool: OpenPool) -> Iterator[PoolItem]:
    """The items of a labelled set: in a folder, what is not named as an image is no part of it."""
    for item in _items(pool):
        if not (isinstance(item.image, Unreadable) and item.image.reason == "FILE_NOT_AN_IMAGE"):
            yield item


def _unlabelled(items: Iterable[PoolItem], labelled: Set[str], left_out: Counter[str]) -> Iterator[PoolItem]:
    seen: set[str] = set()
    for item in items:
        if item.id in labelled:
            left_out["labelled"] += 1
        elif item.id in seen:
            left_out["duplicate"] += 1
        else:
            seen.add(item.id)
            yield item


def _read_with_labels(
    path: Path, target: ImageInput, known: Sequence[str] | None, what: str, progress: bool
) -> tuple[tuple[str, ...], NDArray[np.uint8], dict[str, str], list[str] | None]:
    """Returns ids, images, class name by id, and the classes that the files declare, if they do."""
    pool = open_images(path)
    files = parquet_files(path)
    # Before the images, so that a missing column shows at once.
    names, declared = read_class_names(files, known) if files else ({}, None)
    ids, images, skipped = _decode(_images(pool), pool.rows, target, what, progress)
    if skipped:
        id_, error = next(iter(skipped.items()))
        others = f" ({len(skipped) - 1} others as well)" if len(skipped) > 1 else ""
        raise InvalidDataError(
            f"{path}: the {what} image {id_} cannot be used: {error}{others}; mend it or leave it out",
            reason="IMAGE_UNUSABLE",
            id=id_,
            image_reason=error.reason,
        )
    if not ids:
        raise InvalidDataError(f"{path} holds no {what} image", reason="NO_IMAGES")
    return ids, images, names or {id_: folder_class_name(id_) for id_ in ids}, declared


def _labelled_set(
    ids: tuple[str, ...], images: NDArray[np.uint8], names: dict[str, str], classes: Sequence[str]
) -> LabelledSet:
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index.get(names[id_], -1) for id_ in ids], np.int64)
    return LabelledSet(ids, images, labels, tuple(classes))


def _decode(
    items: Iterable[PoolItem], rows: int, target: ImageInput, what: str, progress: bool
) -> tuple[tuple[str, ...], NDArray[np.uint8], dict[str, SkippedImageError]]:
    """Returns ids and images (N, H, W, 3) in the order of `items`, and by id what could not be decoded."""
    images = np.empty((rows, target.height, target.width, 3), np.uint8)
    ids: list[str] = []
    skipped: dict[str, SkippedImageError] = {}
    shown = iter(bar(items, f"decoding {what}", "image", show=progress, total=rows))
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as decoders:
        while together := list(islice(shown, _DECODED_TOGETHER)):
            for item, image in zip(
                together, decoders.map(lambda item: _load(item, target), together), strict=True
            ):
                if isinstance(image, SkippedImageError):
                    skipped[item.id] = image
                else:
                    images[len(ids)] = image
                    ids.append(item.id)
    return tuple(ids), images[: len(ids)], skipped


def _load(item: PoolItem, target: ImageInput) -> NDArray[np.uint8] | SkippedImageError:
    if isinstance(item.image, Unreadable):
        return SkippedImageError(item.image.reason, item.image.detail)
    try:
        return imaging.load(item.image, target)
    except SkippedImageError as error:
        return error


def _common_small_size(pool: OpenPool) -> tuple[int, int] | None:
    """Height and width if every image has the same and both are small; what is no image says nothing."""
    sizes = set()
    for item in _items(pool):
        if not isinstance(item.image, bytes):
            continue
        try:
            with Image.open(io.BytesIO(item.image)) as opened:
                sizes.add((opened.height, opened.width))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # reading the images will name it
        if len(sizes) > 1 or max(max(sizes)) > SMALL_IMAGE:
            return None
    return sizes.pop() if sizes else None


def _numbers_by_value(name: str) -> tuple[bool, int, str]:
    number = name.removeprefix("-")
    return (not number.isdecimal(), int(name) if number.isdecimal() else 0, name)
