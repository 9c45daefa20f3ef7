"""Read published data sets with torchvision, which downloads missing ones."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets as tv
from numpy.typing import NDArray

from topb.image_input import ImageInput, ResizeRule
from topb_scorer import imaging
from topb_trainer.config import ImageConfig
from topb_trainer.data.idx import idx_file, read_idx
from topb_trainer.data.mapped import ImageFile
from topb_trainer.data.reading import LARGE_IMAGE_INPUT
from topb_trainer.data.sets import Dataset, LabelledSet, with_row_ids
from topb_trainer.errors import InvalidDataError

CALTECH256_TEST_PER_CLASS = 10
"""As in the paper: 2,560 test images of 256 classes."""

_CALTECH256_SPLIT_SEED = 0
_CLUTTER = "257.clutter"
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def cifar10(root: Path, image: ImageConfig) -> Dataset:
    """Read CIFAR-10: 50,000 training and 10,000 test images, 32 × 32."""
    return _cifar("cifar10", tv.CIFAR10, root, image)


def cifar100(root: Path, image: ImageConfig) -> Dataset:
    """Read CIFAR-100 with its 100 fine classes: 50,000 training and 10,000 test images, 32 × 32."""
    return _cifar("cifar100", tv.CIFAR100, root, image)


def svhn(root: Path, image: ImageConfig) -> Dataset:
    """Read SVHN without its extra set: 73,257 training and 26,032 test images of digits, 32 × 32."""
    target = _target(image, 32)
    classes = tuple(str(digit) for digit in range(10))

    def part(split: str) -> LabelledSet:
        read = _opened("svhn", root, lambda **options: tv.SVHN(root, split=split, **options))
        pixels = np.ascontiguousarray(read.data.transpose(0, 2, 3, 1))  # (N, 32, 32, 3)
        return with_row_ids(f"svhn-{split}", _fitted(pixels, target), _labels(read.labels), classes)

    return Dataset("svhn", part("train"), part("test"), target)


def fashion_mnist(root: Path, image: ImageConfig) -> Dataset:
    """Read Fashion-MNIST: 60,000 training and 10,000 test images, 28 × 28, grey, as RGB."""
    target = _target(image, 28)

    def read(stem: str) -> NDArray[np.uint8]:
        file = idx_file(root, stem)
        if file is None:
            _opened("fashion_mnist", root, lambda **options: tv.FashionMNIST(root, **options))
            file = idx_file(root, stem)
        if file is None:
            raise _missing("fashion_mnist", root, f"there is no {stem}")
        return read_idx(file)

    def part(split: str, stem: str) -> LabelledSet:
        grey = read(f"{stem}-images-idx3-ubyte")  # (N, 28, 28)
        rgb = np.repeat(grey[..., None], 3, axis=3)
        labels = _labels(read(f"{stem}-labels-idx1-ubyte"))
        if len(labels) != len(rgb):
            raise InvalidDataError(
                f"{root}: {len(rgb)} {split} images but {len(labels)} labels; download the files again",
                reason="IDX_UNREADABLE",
            )
        return with_row_ids(f"fashion_mnist-{split}", _fitted(rgb, target), labels, _FASHION_CLASSES)

    return Dataset("fashion_mnist", part("train", "train"), part("test", "t10k"), target)


def caltech256(root: Path, image: ImageConfig) -> Dataset:
    """Read Caltech-256. Ten images of each class, drawn with a fixed seed, are the test set.

    The 827 images of `257.clutter` are left out, as they belong to no class. The paper's count of 30,607
    images includes them.
    """
    target = _target(image, LARGE_IMAGE_INPUT)
    read = _opened("caltech256", root, lambda **options: tv.Caltech256(root, **options))
    categories = [name for name in read.categories if name != _CLUTTER]
    folders = Path(read.root) / "256_ObjectCategories"
    draw = np.random.default_rng(_CALTECH256_SPLIT_SEED)
    train: list[tuple[Path, int]] = []
    test: list[tuple[Path, int]] = []
    for label, category in enumerate(categories):
        files = sorted((folders / category).glob("*.jpg"))
        if len(files) <= CALTECH256_TEST_PER_CLASS:
            raise InvalidDataError(
                f"{folders / category} holds {len(files)} images; expected more than "
                f"{CALTECH256_TEST_PER_CLASS}, because that many of each class are held out for testing",
                reason="TOO_FEW_IMAGES",
            )
        held_out = set(draw.choice(len(files), CALTECH256_TEST_PER_CLASS, replace=False).tolist())
        for index, file in enumerate(files):
            (test if index in held_out else train).append((file, label))
    # The folder of the class "ak47" is called "001.ak47".
    classes = tuple(category.partition(".")[2] or category for category in categories)

    def part(split: str, files: list[tuple[Path, int]]) -> LabelledSet:
        labels = np.array([label for _, label in files], np.int64)
        with ImageFile(target.height, target.width) as images:
            for file, _ in files:
                images.append(imaging.load(file.read_bytes(), target))
            return with_row_ids(f"caltech256-{split}", images.mapped(), labels, classes)

    return Dataset("caltech256", part("train", train), part("test", test), target)


PUBLISHED: dict[str, Callable[[Path, ImageConfig], Dataset]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "caltech256": caltech256,
    "fashion_mnist": fashion_mnist,
}
"""The readers of the published data sets by name."""


def _cifar(name: str, kind: Any, root: Path, image: ImageConfig) -> Dataset:
    target = _target(image, 32)

    def part(split: str) -> LabelledSet:
        read = _opened(name, root, lambda **options: kind(root, train=split == "train", **options))
        return with_row_ids(
            f"{name}-{split}", _fitted(read.data, target), _labels(read.targets), tuple(read.classes)
        )

    return Dataset(name, part("train"), part("test"), target)


def _opened(name: str, root: Path, construct: Callable[..., Any]) -> Any:
    """Return torchvision's data set from `root`, and download it first if it is missing or incomplete.

    Raises:
        InvalidDataError: the data set is missing and cannot be downloaded.
    """
    try:
        return construct(download=False)
    except RuntimeError:
        pass  # torchvision reports missing files and wrong checksums as RuntimeError.
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):
            return construct(download=True)
    except (OSError, RuntimeError) as error:
        raise _missing(name, root, str(error)) from error


def _missing(name: str, root: Path, why: str) -> InvalidDataError:
    return InvalidDataError(
        f"{name} is missing from {root} or incomplete, and could not be downloaded ({why}); put the files of "
        "its original release there, laid out as for torchvision, or give another --data-root",
        reason="DATASET_UNAVAILABLE",
        dataset=name,
        root=root,
    )


def _target(image: ImageConfig, size: int) -> ImageInput:
    height, width = image.size or (size, size)
    return ImageInput(height, width, image.resize or ResizeRule.STRETCH)


def _fitted(images: NDArray[np.uint8], target: ImageInput) -> NDArray[np.uint8]:
    if images.shape[1:3] == (target.height, target.width):
        return np.ascontiguousarray(images)
    with ImageFile(target.height, target.width) as fitted:
        for image in images:
            fitted.append(imaging.fit(image, target))
        return fitted.mapped()


def _labels(labels: Any) -> NDArray[np.int64]:
    return np.asarray(labels, np.int64)
