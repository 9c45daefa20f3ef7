"""Open a published data set by its name, or any other by the paths of its images."""

from __future__ import annotations

from pathlib import Path

from topb_scorer.pools.vectors import VectorLayout
from topb_trainer.config import ImageConfig
from topb_trainer.data.decoding import open_images
from topb_trainer.data.published import PUBLISHED
from topb_trainer.data.reading import read_labelled, read_test, target_of
from topb_trainer.data.sets import Dataset, require_images
from topb_trainer.errors import InvalidDataError


def open_dataset(
    data: str,
    test: Path | None,
    root: Path,
    image: ImageConfig,
    *,
    train_images: int | None = None,
    test_images: int | None = None,
    progress: bool = False,
) -> Dataset:
    """Read a data set, or a part of it.

    Args:
        data: a name in `PUBLISHED`, or the path of labelled training images; see `read_labelled`.
        test: path of test images, laid out like the training images; None for a published data set.
        root: directory of published data sets. Missing ones are downloaded into it.
        image: the size to which images are resized, and the method.
        train_images: number of training images to draw, always the same ones; by default, all are kept.
        test_images: number of test images to draw.
        progress: whether to show progress on standard error.

    Raises:
        InvalidDataError: the data is missing or cannot be used.
        ScorerError: a path cannot be read as a pool.
    """
    if data in PUBLISHED:
        if test is not None:
            raise InvalidDataError(
                f"{data} has its own test set; give --test only if --data is a path", reason="TEST_NOT_WANTED"
            )
        return PUBLISHED[data](root, image).limited(train_images, test_images, seed=0)
    path = Path(data)
    if not path.exists():
        raise InvalidDataError(
            f"{data!r} is neither a file, a folder nor a published data set; "
            f"expected a path or one of {', '.join(PUBLISHED)}",
            reason="DATASET_UNKNOWN",
            dataset=data,
        )
    if test is None:
        raise InvalidDataError(f"{data} has no test set; give one with --test", reason="TEST_MISSING")
    # Fail before minutes of decoding.
    for images, count in ((path, train_images), (test, test_images)):
        require_images(count or 0, open_images(images).rows)
    target = target_of(image, path)
    train = read_labelled(path, target, progress=progress)
    whole = Dataset(path.stem, train, read_test(test, target, train.classes, progress=progress), target)
    return whole.limited(train_images, test_images, seed=0)


def labelled_vectors(data: str | None) -> VectorLayout | None:
    """Return the sizes of the vectors of a data set; None if it has images, or cannot be opened yet.

    Args:
        data: as for `open_dataset`, which reports what is wrong with it.
    """
    if data is None or data in PUBLISHED or not Path(data).exists():
        return None
    return open_images(Path(data)).vectors
