"""Read labelled images, pools and test images, with the decoder of the scorer."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from topb.image_input import ImageInput, ResizeRule
from topb_scorer.pools import (
    OpenPool,
    PoolItem,
)
from topb_scorer.pools.pool import NO_DIGEST
from topb_scorer.pools.vectors import VectorLayout
from topb_trainer.config import ImageConfig
from topb_trainer.data.decoding import (
    check_kind,
    decode,
    digest_of,
    image_items,
    open_images,
    pool_items,
    usable_images,
)
from topb_trainer.data.labels import folder_class_name, read_class_names
from topb_trainer.data.sets import LabelledSet, Target, UnlabelledSet
from topb_trainer.errors import InvalidDataError
from topb_trainer.models.resnet import SMALL_IMAGE

LARGE_IMAGE_INPUT = 224
"""Height and width, in pixels, to which larger images are resized. It is the usual size for the ImageNet
stem."""


def target_of(config: ImageConfig, labelled: Path) -> ImageInput | VectorLayout:
    """Return what the rows of a labelled set become: the width of its vectors, or images as configured.

    A missing size is derived from the labelled images.
    """
    pool = open_images(labelled)
    return image_input(config, labelled) if pool.vectors is None else VectorLayout(pool.vectors.width)


def image_input(config: ImageConfig, labelled: Path) -> ImageInput:
    """Return the model's input as configured. A missing size is derived from the labelled images."""
    size = config.size or _common_small_size(open_images(labelled))
    return ImageInput(*(size or (LARGE_IMAGE_INPUT, LARGE_IMAGE_INPUT)), config.resize or ResizeRule.STRETCH)


def read_labelled(path: Path, target: Target, *, progress: bool = False) -> LabelledSet:
    """Read labelled training images: a pool of any kind, with labels.

    The labels are in the column `label` of Parquet or CSV files, in the `.cls` of WebDataset's samples, or in
    the layout class/file.jpg of an image folder.

    Raises:
        InvalidDataError: a label or an image cannot be used, or there are fewer than two images or classes.
        ScorerError: the path does not exist, or it cannot be read as a pool.
    """
    labelled = _read_labelled(path, target, None, "labelled", progress)
    if len(labelled.ids) < 2 or len(labelled.classes) < 2:
        raise InvalidDataError(
            f"{path} holds {len(labelled.ids)} labelled images of {len(labelled.classes)} classes; "
            "at least two of each are needed",
            reason="TOO_FEW_LABELLED",
        )
    return labelled


def read_test(path: Path, target: Target, classes: Sequence[str], *, progress: bool = False) -> LabelledSet:
    """Read test images, laid out like labelled ones, for a model of `classes`.

    Images of other classes get the label −1.

    Raises:
        InvalidDataError: a label or an image cannot be used, there are no images, or none is of these
            classes.
        ScorerError: the path does not exist, or it cannot be read as a pool.
    """
    test = _read_labelled(path, target, classes, "test", progress)
    if not (test.labels >= 0).any():
        raise InvalidDataError(
            f"{path} holds {len(test.ids)} test images, but none of a labelled class; expected "
            f"{', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}",
            reason="TEST_CLASSES",
        )
    return test


def read_pool(
    path: Path, target: Target, labelled: Mapping[str, bytes], *, progress: bool = False
) -> UnlabelledSet:
    """Read a pool as the scorer does. Rows that are left out or cannot be decoded are counted.

    Args:
        path: a pool of any kind.
        target: the input of the model, or the width of the vectors.
        labelled: images to leave out because they are labelled already: the content digest of each by its id.
            An image is found by either, so its file may lie elsewhere in the pool.
        progress: whether to show progress on standard error.

    Raises:
        InvalidDataError: no unlabelled image is left.
        ScorerError: the path does not exist, or it cannot be read as a pool.
    """
    pool = open_images(path)
    check_kind(path, pool, target)
    left_out = _LeftOut(labelled)
    ids, images, skipped = decode(
        left_out.others(pool_items(pool, target)), pool.rows, target, "pool", progress
    )
    if not ids:
        raise InvalidDataError(
            f"{path} holds {pool.rows} rows and no unlabelled image: {left_out.labelled} are labelled, "
            f"{len(skipped)} could not be decoded",
            reason="POOL_EMPTY",
        )
    reasons = Counter(error.reason for error in skipped.values())
    return UnlabelledSet(
        ids, images, left_out.labelled, left_out.absent, left_out.duplicates, dict(sorted(reasons.items()))
    )


class _LeftOut:
    """Leaves labelled and duplicate rows out of a pool, and counts them."""

    def __init__(self, labelled: Mapping[str, bytes]) -> None:
        self._digest_of = labelled
        self._contents = frozenset(labelled.values()) - {NO_DIGEST}
        self._found: set[str | bytes] = set()
        self.labelled = self.duplicates = 0

    @property
    def absent(self) -> int:
        """The number of labelled images that were not among the rows so far."""
        return sum(
            id_ not in self._found and digest not in self._found for id_, digest in self._digest_of.items()
        )

    def others(self, items: Iterable[PoolItem]) -> Iterator[PoolItem]:
        """Yield the first row of each id, unless it has the id or the content of a labelled image."""
        seen: set[str] = set()
        for item in items:
            digest = digest_of(item)
            if item.id in self._digest_of or digest in self._contents:
                self._found |= {item.id} | ({digest} & self._contents)
                self.labelled += 1
            elif item.id in seen:
                self.duplicates += 1
            else:
                seen.add(item.id)
                yield item


def _read_labelled(
    path: Path, target: Target, known: Sequence[str] | None, name: str, progress: bool
) -> LabelledSet:
    """Read images and labels. The classes are `known`, or else those that the files declare or use."""
    pool = open_images(path)
    check_kind(path, pool, target)
    # Labels are read before images because a missing column is then reported at once.
    labels_read = read_class_names(pool, known)
    ids, images, digests = usable_images(
        path, image_items(pool, target), pool.rows, target, name, progress=progress
    )
    class_of, declared = labels_read or ({id_: folder_class_name(id_) for id_ in ids}, None)
    classes = known or declared or sorted(set(class_of.values()), key=_numbers_by_value)
    index = {class_name: i for i, class_name in enumerate(classes)}
    labels = np.array([index.get(class_of[id_], -1) for id_ in ids], np.int64)  # (N)
    return LabelledSet(ids, images, labels, tuple(classes), digests)


def _common_small_size(pool: OpenPool) -> tuple[int, int] | None:
    """Return the common height and width of the images, or None if they differ or are large."""
    sizes = set()
    for item in pool_items(pool):
        if not isinstance(item.image, bytes):
            continue
        try:
            with Image.open(io.BytesIO(item.image)) as image:
                sizes.add((image.height, image.width))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # Decoding reports it later.
        if len(sizes) > 1 or max(max(sizes)) > SMALL_IMAGE:
            return None
    return sizes.pop() if sizes else None


def _numbers_by_value(name: str) -> tuple[bool, int, str]:
    digits = name.removeprefix("-")
    return (not digits.isdecimal(), int(name) if digits.isdecimal() else 0, name)
