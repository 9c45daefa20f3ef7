"""Sets of images, decoded to one size. Large ones are mapped from a file, see `data/mapped.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topb.image_input import ImageInput
from topb_scorer.pools import OpenPool, PoolItem, content_digest
from topb_scorer.pools.vectors import VectorLayout
from topb_trainer.data.mapped import mapped_rows
from topb_trainer.errors import InvalidDataError


@dataclass(frozen=True)
class EncodedImage:
    """The features of an image, which take its place."""

    features: NDArray[np.float32]
    """(D)."""
    digest: bytes
    """The content digest of the image."""


class PoolEncoder(Protocol):
    """Turns the images of pools into their features."""

    @property
    def feature_size(self) -> int:
        """The number D of features."""

    def encoded(self, pool: OpenPool) -> Iterator[PoolItem]:
        """Yield the rows of a pool, each with an `EncodedImage` in place of the image, or unreadable."""


Target = ImageInput | VectorLayout | PoolEncoder
"""What all rows of a set are made: images of one size, vectors of one width, or features of images."""


@dataclass(frozen=True)
class LabelledSet:
    """Labelled images, for training T or for testing it."""

    ids: tuple[str, ...]
    """N distinct ids."""
    images: NDArray[Any]
    """uint8 (N, H, W, 3), RGB. If only a head is trained, the features of the encoder take their place:
    float32 (N, D). So do vectors, for which there is no encoder."""
    labels: NDArray[np.int64]
    """(N), indices into `classes`. In a test set, −1 stands for a class that T does not know."""
    classes: tuple[str, ...]
    """The names of the C classes."""
    digests: tuple[bytes, ...] = ()
    """N content digests of the images as they were given; by default, those of `images`."""

    def __post_init__(self) -> None:
        if not self.digests:
            object.__setattr__(self, "digests", tuple(map(content_digest, self.images)))

    def digest_of(self) -> dict[str, bytes]:
        """Return the content digest of each image by its id."""
        return dict(zip(self.ids, self.digests, strict=True))

    def subset(self, rows: NDArray[np.int64]) -> LabelledSet:
        """Return the images in these rows (M), in this order. They are mapped from a file."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        digests = tuple(self.digests[row] for row in rows.tolist())
        return LabelledSet(ids, mapped_rows(self.images, rows), self.labels[rows], self.classes, digests)


@dataclass(frozen=True)
class UnlabelledSet:
    """The images of a pool that are not labelled yet, and how many of its rows were left out."""

    ids: tuple[str, ...]
    """M distinct ids."""
    images: NDArray[Any]
    """uint8 (M, H, W, 3), RGB, or features: see `LabelledSet.images`."""
    labelled: int = 0
    """Number of rows left out because they have the id or the content of a labelled image."""
    labelled_absent: int = 0
    """Number of labelled images that the pool does not have, neither by id nor by content."""
    duplicates: int = 0
    """Number of rows left out because an earlier row has the same id."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Number of rows that could not be decoded, by reason."""


@dataclass(frozen=True)
class RoundData:
    """The images of one round."""

    labelled: LabelledSet
    pool: UnlabelledSet
    test: LabelledSet | None
    target: ImageInput | VectorLayout
    """The size to which all images were resized, and the method; or the width of the vectors."""


@dataclass(frozen=True)
class Dataset:
    """A training set and a test set. An experiment reveals the labels of the training set round by round."""

    name: str
    train: LabelledSet
    """All images that can be labelled. Their labels are known and stand for the oracle."""
    test: LabelledSet
    target: ImageInput | VectorLayout
    """The size to which all images were resized, and the method; or the width of the vectors."""

    def limited(self, train: int | None, test: int | None, seed: int) -> Dataset:
        """Return a data set of `train` training and `test` test images, drawn without replacement.

        None keeps all images of a set.

        Raises:
            InvalidDataError: a set has fewer images.
        """
        return replace(self, train=_sample(self.train, train, seed), test=_sample(self.test, test, seed))

    def sha256(self) -> str:
        """Return a digest of ids, labels, classes and pixels, in their order."""
        digest = hashlib.sha256("\0".join(self.train.classes).encode())
        for part in (self.train, self.test):
            digest.update("\0".join(part.ids).encode())
            digest.update(part.labels.tobytes())
            digest.update(np.ascontiguousarray(part.images).data)
        return digest.hexdigest()


def with_row_ids(
    prefix: str, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> LabelledSet:
    """Return a labelled set of images (N, H, W, 3) and labels (N) with the ids `<prefix>-<row>`."""
    ids = tuple(f"{prefix}-{row:06d}" for row in range(len(images)))
    return LabelledSet(ids, images, labels, classes)


def require_images(count: int, available: int) -> None:
    """Raise an error if `count` images cannot be drawn from those that are available.

    Raises:
        InvalidDataError: there are fewer.
    """
    if count > available:
        raise InvalidDataError(
            f"cannot draw {count} images from {available}; lower protocol.train_images or "
            "protocol.test_images",
            reason="TOO_FEW_IMAGES",
            count=count,
        )


def _sample(whole: LabelledSet, count: int | None, seed: int) -> LabelledSet:
    if count is None:
        return whole
    require_images(count, len(whole.ids))
    rows = np.random.default_rng(seed).choice(len(whole.ids), count, replace=False)
    return whole.subset(np.sort(rows).astype(np.int64))
