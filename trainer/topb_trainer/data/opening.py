"""Opens a data set: a published one by its name, or Parquet and image folders by their paths."""

from __future__ import annotations

from pathlib import Path

from topb_trainer.config import ImageConfig
from topb_trainer.data.published import PUBLISHED
from topb_trainer.data.reading import image_input, read_labelled, read_test
from topb_trainer.data.sets import Dataset
from topb_trainer.errors import InvalidDataError


def open_dataset(
    data: str, test: Path | None, root: Path, image: ImageConfig, *, progress: bool = False
) -> Dataset:
    """Reads a data set into memory.

    Args:
        data: a name in `PUBLISHED`, or the path of training images: Parquet of id, label, and image or path,
            or a folder of class/file.jpg.
        test: test images laid out like the training images; with a path only.
        root: where published data sets lie, or are downloaded to.
        image: to what size, and how, images are brought.
        progress: whether to show bars on a terminal.

    Raises:
        InvalidDataError: the data is not there or cannot be used.
        ScorerError: a path cannot be read as a pool.
    """
    if data in PUBLISHED:
        if test is not None:
            raise InvalidDataError(
                f"{data} has a test set of its own; --test goes with the path of a data set",
                reason="TEST_NOT_WANTED",
            )
        return PUBLISHED[data](root, image)
    path = Path(data)
    if not path.exists():
        raise InvalidDataError(
            f"{data!r} is neither a file or folder nor one of {', '.join(PUBLISHED)}",
            reason="DATASET_UNKNOWN",
            dataset=data,
        )
    if test is None:
        raise InvalidDataError(
            f"{data} needs a test set beside it: name one with --test", reason="TEST_MISSING"
        )
    target = image_input(image, path)
    train = read_labelled(path, target, progress=progress)
    return Dataset(path.stem, train, read_test(test, target, train.classes, progress=progress), target)
