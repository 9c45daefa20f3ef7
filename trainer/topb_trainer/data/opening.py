"""Open a published data set by its name, or any other by the paths of its images."""

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
    """Read a data set.

    Args:
        data: a name in `PUBLISHED`, or the path of labelled training images; see `read_labelled`.
        test: path of test images, laid out like the training images; None for a published data set.
        root: directory of published data sets. Missing ones are downloaded into it.
        image: the size to which images are resized, and the method.
        progress: whether to show progress bars.

    Raises:
        InvalidDataError: the data is missing or cannot be used.
        ScorerError: a path cannot be read as a pool.
    """
    if data in PUBLISHED:
        if test is not None:
            raise InvalidDataError(
                f"{data} has its own test set; give --test only if --data is a path", reason="TEST_NOT_WANTED"
            )
        return PUBLISHED[data](root, image)
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
    target = image_input(image, path)
    train = read_labelled(path, target, progress=progress)
    return Dataset(path.stem, train, read_test(test, target, train.classes, progress=progress), target)
