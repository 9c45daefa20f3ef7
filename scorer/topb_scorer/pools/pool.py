"""Define what all kinds of pools have in common: shards, items, and the columns of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from topb.pools import PoolFormatName
from topb_scorer.errors import InvalidRequestError

if TYPE_CHECKING:
    from topb_scorer.pools.storage import Location
    from topb_scorer.pools.vectors import VectorLayout

MAX_ID_BYTES = 1024
"""The largest id of an image, in bytes of UTF-8. S3 allows keys of the same size."""
DIGEST_BYTES = 16
NO_DIGEST = bytes(DIGEST_BYTES)
"""Takes the place of the digest of an image whose bytes are not known."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Takes the place of an image that cannot be read."""

    reason: str
    """A stable name in UPPER_SNAKE_CASE, such as FILE_MISSING."""
    detail: str
    """An explanation for people."""


@dataclass(frozen=True, slots=True)
class PoolItem:
    """One row of a pool."""

    id: str
    """The caller's name for the image."""
    image: bytes | NDArray[np.uint8] | Unreadable
    """The encoded image, uint8 (h, w, 3) in RGB, or the reason why it cannot be read."""


def with_bounded_id(item: PoolItem) -> PoolItem:
    """Return the item, or an unreadable one with the start of its id if that exceeds `MAX_ID_BYTES`."""
    fault = id_fault(item.id)
    return item if fault is None else PoolItem(f"{item.id[:64]}…", fault)


def id_fault(id_: str) -> Unreadable | None:
    """Return the reason why a row with this id is skipped, if the id exceeds `MAX_ID_BYTES`."""
    # A character takes four bytes at most.
    if len(id_) <= MAX_ID_BYTES // 4 or (size := len(id_.encode())) <= MAX_ID_BYTES:
        return None
    return Unreadable("ID_TOO_LONG", f"the id has {size} bytes; an id may have {MAX_ID_BYTES}")


def content_digest(image: bytes | NDArray[np.uint8] | NDArray[np.float32] | Unreadable) -> bytes:
    """Return the 128-bit BLAKE2b digest of a row as it was given, or `NO_DIGEST` if it cannot be read.

    It identifies an image wherever its file lies. With BLAKE2b, nobody can prepare two images with the same
    digest. docs/results/content_digest.md has what it costs.

    Args:
        image: the bytes of an image file, uint8 (h, w, 3) in RGB, or a vector as float32 (D,).
    """
    if isinstance(image, Unreadable):
        return NO_DIGEST
    content = image if isinstance(image, bytes) else np.ascontiguousarray(image).data
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


class Shard(Protocol):
    """A part of a pool that is scored and logged as a unit: an `ImageShard` or a `VectorShard`."""

    @property
    def identity(self) -> str:
        """An identifier of the contents: it changes when they change, and is unique within the pool."""

    @property
    def rows(self) -> int:
        """The number of rows."""


class ImageShard(Shard, Protocol):
    """A shard of images."""

    def items(self) -> Iterator[PoolItem]:
        """Yield the items, starting with the first at each call."""


@dataclass(frozen=True)
class OpenPool:
    """An opened pool. The order of its shards does not affect the result of a selection."""

    shards: Sequence[Shard]
    format: PoolFormatName
    """The format of the pool."""
    files: Sequence[Location] = ()
    """The files of the pool, in the order of their shards; none for an image folder, whose files are rows."""
    vectors: VectorLayout | None = None
    """The sizes of the rows of a pool of vectors; None for images."""

    @property
    def image_shards(self) -> Sequence[ImageShard]:
        """The shards of a pool of images.

        Raises:
            InvalidRequestError: with reason IMAGES_NEEDED, if the pool has vectors.
        """
        if self.vectors is not None:
            raise InvalidRequestError(
                f"the pool has {self.vectors}; expected images: give Parquet files with a column of images "
                "or of their paths, a folder of images, tars or CSV files",
                reason="IMAGES_NEEDED",
            )
        return cast("Sequence[ImageShard]", self.shards)

    @property
    def rows(self) -> int:
        """The number of rows in all shards."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class Columns:
    """The columns of Parquet and CSV files. Image folders and WebDataset have none."""

    id: str
    """The column of ids: strings or, in Parquet, integers."""
    image: str
    """The column of encoded images, in Parquet only: binary, or a struct with a binary field `bytes`."""
    path: str
    """The column of paths and URLs of images. Relative paths are relative to the file's folder. In Parquet
    this column is read only if there is no image column."""
    embedding: str = "embedding"
    """The column of vectors, in Parquet only: lists of float16, float32 or float64."""
    probabilities: str | None = None
    """The column of predicted class probabilities beside vectors, lists of floats; None for `probabilities`
    if there is such a column."""


def identity_of(*parts: object) -> str:
    """Return a shard identity of 32 hex digits that depends on all `parts`."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
