"""A data set in memory: a training set, whose labels an experiment reveals as it goes, and a test set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from topb.image_input import ImageInput
from topb_trainer.errors import InvalidDataError


@dataclass(frozen=True)
class LabelledSet:
    """Images with labels: what T is trained on, or tested on."""

    ids: tuple[str, ...]
    """Distinct."""
    images: NDArray[np.uint8]
    """(N, H, W, 3), RGB."""
    labels: NDArray[np.int64]
    """(N), indices into `classes`; −1, in a test set only: a class that T does not know."""
    classes: tuple[str, ...]
    """Names; C of them."""


@dataclass(frozen=True)
class UnlabelledSet:
    """The pool without what is labelled already, and what of its rows became nothing."""

    ids: tuple[str, ...]
    """Distinct."""
    images: NDArray[np.uint8]
    """(N, H, W, 3), RGB."""
    labelled: int = 0
    """Rows left out because their ids are labelled."""
    duplicates: int = 0
    """Rows left out because their ids came before."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Rows that could not be decoded, by reason."""


@dataclass(frozen=True)
class Dataset:
    """Training and test images, decoded to one size."""

    name: str
    train: LabelledSet
    """All that can be labelled; every label is known, and stands for the oracle."""
    test: LabelledSet
    target: ImageInput
    """What all of them were brought to."""

    def limited(self, train: int | None, test: int | None, seed: int) -> Dataset:
        """Returns it with so many training and test images, drawn without replacement; None: all."""
        return replace(self, train=_drawn(self.train, train, seed), test=_drawn(self.test, test, seed))

    def sha256(self) -> str:
        """Digest of ids, labels, classes and pixels, in their order."""
        digest = hashlib.sha256("\0".join(self.train.classes).encode())
        for part in (self.train, self.test):
            digest.update("\0".join(part.ids).encode())
            digest.update(part.labels.tobytes())
            digest.update(np.ascontiguousarray(part.images).data)
        return digest.hexdigest()


def labelled_set(
    prefix: str, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> LabelledSet:
    """Returns images (N, H, W, 3) with ids `<prefix>-<row>` that tell nothing of their labels (N)."""
    ids = tuple(f"{prefix}-{row:06d}" for row in range(len(images)))
    return LabelledSet(ids, images, labels, classes)


def subset(whole: LabelledSet, rows: NDArray[np.int64]) -> LabelledSet:
    """Returns the images of these rows, in their order."""
    ids = tuple(whole.ids[row] for row in rows.tolist())
    return LabelledSet(ids, whole.images[rows], whole.labels[rows], whole.classes)


def _drawn(whole: LabelledSet, count: int | None, seed: int) -> LabelledSet:
    if count is None:
        return whole
    if count > len(whole.ids):
        raise InvalidDataError(
            f"{count} images are to be drawn of {len(whole.ids)}", reason="TOO_FEW_IMAGES", count=count
        )
    rows = np.random.default_rng(seed).choice(len(whole.ids), count, replace=False)
    return subset(whole, np.sort(rows).astype(np.int64))
