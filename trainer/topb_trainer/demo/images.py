"""Read the images of the demo, split them into test, labelled and pool, and write them as Parquet."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from topb_scorer.pools import AllowedRoots, open_pool
from topb_trainer.data.labels import folder_class_name, read_class_names
from topb_trainer.errors import InvalidDataError

_TEST_SHARE = 0.2
_LABELLED_SHARE = 0.1
_MOST_TEST_IMAGES = 1000
_DIGIT_LEVELS = 16


@dataclass(frozen=True)
class LabelledImage:
    """An encoded image and the name of its class."""

    id: str
    image: bytes
    label: str


@dataclass(frozen=True)
class DemoImages:
    """The images of a demo, and the folder with a Parquet file of each part, such as test.parquet."""

    folder: Path
    test: Sequence[LabelledImage]
    labelled: Sequence[LabelledImage]
    pool: dict[str, LabelledImage]
    """The pool's images by id. Only the oracle knows their labels: the file does not contain them."""


def digits() -> list[LabelledImage]:
    """Return scikit-learn's 1,797 handwritten digits, 8 × 8 and grey (UCI, optical recognition)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / _DIGIT_LEVELS)).astype(np.uint8)
    return [
        LabelledImage(f"digit-{i:04d}", _png(image), str(label))
        for i, (image, label) in enumerate(zip(images, bunch.target, strict=True))
    ]


def images_at(path: Path) -> list[LabelledImage]:
    """Return the readable images of a labelled set: a pool of any kind, with labels.

    Raises:
        InvalidDataError: a label is missing or cannot be read.
        ScorerError: `path` does not exist or is not a pool.
    """
    pool = open_pool(str(path), roots=AllowedRoots.anywhere())
    names, _ = read_class_names(pool, None) or ({}, None)
    return [
        LabelledImage(item.id, item.image, names.get(item.id) or folder_class_name(item.id))
        for shard in pool.image_shards
        for item in shard.items()
        if isinstance(item.image, bytes)
    ]


def split(images: Sequence[LabelledImage], folder: Path, *, limit: int | None, seed: int) -> DemoImages:
    """Draw images and write them to `folder`: a fifth for testing, and a tenth of the rest labelled.

    Args:
        images: the images to draw from.
        folder: directory for the Parquet files.
        limit: number of images to draw; None for all.
        seed: seed of the draw.

    Raises:
        InvalidDataError: there are too few images to train on.
    """
    drawn = random.Random(seed).sample(images, min(limit or len(images), len(images)))
    tests = min(int(len(drawn) * _TEST_SHARE), _MOST_TEST_IMAGES)
    labelled_count = int((len(drawn) - tests) * _LABELLED_SHARE)
    if labelled_count < 2:
        raise InvalidDataError(
            f"the demo has {len(drawn)} images; it needs at least 25, and some hundreds to learn anything",
            reason="TOO_FEW_IMAGES",
        )
    test, labelled, pool = drawn[:tests], drawn[tests:][:labelled_count], drawn[tests:][labelled_count:]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("test", test), ("labelled", labelled), ("pool", pool)):
        columns: dict[str, list[str] | list[bytes]] = {
            "id": [image.id for image in part],
            "image": [image.image for image in part],
        }
        if part is not pool:
            columns["label"] = [image.label for image in part]
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", row_group_size=512)
    return DemoImages(folder, test, labelled, {image.id: image for image in pool})


def _png(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
