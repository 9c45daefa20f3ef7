"""Data sets, each read from a few files in the format of its release."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as tv
from PIL import Image
from scipy.io import savemat

from topb.image_input import ImageInput, ResizeRule
from topb_trainer.config import ImageConfig
from topb_trainer.data.idx import read_idx
from topb_trainer.data.opening import open_dataset
from topb_trainer.data.sets import Dataset
from topb_trainer.errors import InvalidDataError

from ..conftest import DIGITS


def read(name: str, root: Path, image: ImageConfig | None = None) -> Dataset:
    return open_dataset(name, None, root, image or ImageConfig())


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def cifar_batch(file: Path, content: dict[str, list[int]]) -> np.ndarray:
    """Write a pickle as in the release, rows of 3072 values, red ones first; return images (N, 32, 32, 3)."""
    count = len(content["coarse_labels"])
    images = np.random.default_rng(len(file.name)).integers(0, 256, (count, 32, 32, 3), np.uint8)
    rows = images.transpose(0, 3, 1, 2).reshape(count, 3072)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps({"data": rows, **content}))
    return images


@pytest.mark.parametrize(("name", "kind"), [("cifar10", tv.CIFAR10), ("cifar100", tv.CIFAR100)])
def test_cifar_is_read_from_its_pickles(
    name: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, names = tmp_path / kind.base_folder, [f"class {i}" for i in range(100)]
    names_key, meta = kind.meta["key"], root / kind.meta["filename"]
    labels_key = names_key.replace("label_names", "labels")
    images = {
        part: cifar_batch(root / part, {labels_key: labels, "coarse_labels": [1] * len(labels)})
        for part, labels in {"first": [1, 2, 99], "second": [0, 4], "test": [5, 6]}.items()
    }
    meta.write_bytes(pickle.dumps({names_key: names, "coarse_label_names": ["coarse"] * 20}))
    # torchvision holds the checksums of the release; these files have others.
    monkeypatch.setattr(kind, "train_list", [[part, md5(root / part)] for part in ("first", "second")])
    monkeypatch.setattr(kind, "test_list", [["test", md5(root / "test")]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(meta)})
    data = read(name, tmp_path)
    assert np.array_equal(data.train.images, np.concatenate([images["first"], images["second"]]))
    assert np.array_equal(data.test.images, images["test"])
    assert data.train.labels.tolist() == [1, 2, 99, 0, 4]
    assert data.train.classes == tuple(names)
    assert (data.train.ids[0], data.test.ids[1]) == (f"{name}-train-000000", f"{name}-test-000001")
    assert (data.target.height, data.target.width) == (32, 32)


def test_svhn_is_read_from_its_mat_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    files = {split: tmp_path / f"{split}_32x32.mat" for split in ("train", "test")}
    for file in files.values():
        # In MATLAB's order (32, 32, 3, N), and with 10 for the digit 0.
        savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [9]], np.uint8)})
    splits = {split: ["", file.name, md5(file)] for split, file in files.items()}
    monkeypatch.setattr(tv.SVHN, "split_list", splits)
    data = read("svhn", tmp_path)
    assert np.array_equal(data.train.images, images)
    assert data.test.labels.tolist() == [0, 1, 9]
    assert data.train.classes == DIGITS


def test_caltech256_holds_out_ten_images_per_class_and_omits_the_clutter(tmp_path: Path) -> None:
    for number, name, count in [(1, "ak47", 12), (2, "american-flag", 15), (257, "clutter", 11)]:
        folder = tmp_path / "caltech256" / "256_ObjectCategories" / f"{number:03d}.{name}"
        folder.mkdir(parents=True)
        for image in range(1, count + 1):
            picture = Image.new("RGB", (20 + image, 30), (image, number % 256, 0))
            picture.save(folder / f"{number:03d}_{image:04d}.jpg", quality=95)
        (folder / "RENAME2").touch()  # such files lie in the release
    small = ImageConfig(height=24, width=24)
    data = read("caltech256", tmp_path, small)
    assert data.train.classes == ("ak47", "american-flag")
    assert np.bincount(data.test.labels).tolist() == [10, 10]
    assert np.bincount(data.train.labels).tolist() == [2, 5]
    assert data.train.images.shape == (7, 24, 24, 3)
    together = np.concatenate([data.train.images, data.test.images])[:, 12, 12, 0]
    assert len(set(together.tolist())) >= 12  # each file once: its colour is its number
    assert np.array_equal(read("caltech256", tmp_path, small).test.images, data.test.images)
    assert read("caltech256", tmp_path).target == ImageInput(224, 224, ResizeRule.STRETCH)


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.tobytes()


@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_is_read_from_idx_files(tmp_path: Path, layout: str, zipped: bool) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    folder = tmp_path / layout
    folder.mkdir(parents=True, exist_ok=True)
    for stem in ("train", "t10k"):
        for name, values in (("images-idx3", grey), ("labels-idx1", np.arange(4, dtype=np.uint8))):
            content = gzip.compress(idx(values)) if zipped else idx(values)
            (folder / f"{stem}-{name}-ubyte{'.gz' if zipped else ''}").write_bytes(content)
    data = read("fashion_mnist", tmp_path)
    assert data.train.images.shape == (4, 28, 28, 3)
    assert all(np.array_equal(data.test.images[..., channel], grey) for channel in range(3))
    assert data.train.labels.tolist() == [0, 1, 2, 3]
    assert data.train.classes[3] == "Dress"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "does not start like an IDX file"),
        (idx(np.zeros((3, 2), np.uint8))[:-1], "holds 5 values, but declares"),
        (b"\x00\x00\x08\x03\x00\x00", "ends within its header"),
    ],
)
def test_a_file_that_is_not_idx_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidDataError, match=why):
        read_idx(tmp_path / "file")
    (tmp_path / "file.gz").write_bytes(gzip.compress(content)[:-4])
    with pytest.raises(InvalidDataError, match="cannot be read"):
        read_idx(tmp_path / "file.gz")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "caltech256", "fashion_mnist"])
def test_the_error_for_a_failed_download_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    for kind in (tv.CIFAR10, tv.CIFAR100, tv.SVHN, tv.Caltech256, tv.FashionMNIST):
        monkeypatch.setattr(kind, "download", unreachable)
    with pytest.raises(
        InvalidDataError, match=rf"{name} is missing from .*data.*no route.*--data-root"
    ) as caught:
        read(name, tmp_path / "data")
    assert caught.value.reason == "DATASET_UNAVAILABLE"


def test_a_path_needs_a_test_set_and_a_published_data_set_refuses_one(
    digit_files: Path, tmp_path: Path
) -> None:
    train, test = digit_files / "labelled.parquet", digit_files / "test.parquet"
    data = open_dataset(str(train), test, tmp_path, ImageConfig())
    assert (data.name, len(data.train.ids), len(data.test.ids)) == ("labelled", 60, 100)
    with pytest.raises(InvalidDataError, match="give one with --test"):
        open_dataset(str(train), None, tmp_path, ImageConfig())
    with pytest.raises(InvalidDataError, match="has its own test set"):
        open_dataset("svhn", test, tmp_path, ImageConfig())
    with pytest.raises(
        InvalidDataError, match=r"'cifar11' is neither a file, .* expected a path or one of cifar10, "
    ):
        open_dataset("cifar11", None, tmp_path, ImageConfig())


def test_a_limit_draws_the_same_images_each_time_and_another_seed_others(
    digit_files: Path, tmp_path: Path
) -> None:
    train, test = digit_files / "labelled.parquet", digit_files / "test.parquet"
    data = open_dataset(str(train), test, tmp_path, ImageConfig())
    few = data.limited(20, 10, seed=0)
    assert few.train.ids == data.limited(20, 10, seed=0).train.ids
    assert set(few.train.ids) < set(data.train.ids)
    assert (len(few.train.ids), len(few.test.ids)) == (20, 10)
    row = data.train.ids.index(few.train.ids[7])
    assert np.array_equal(few.train.images[7], data.train.images[row])
    assert few.sha256() == data.limited(20, 10, seed=0).sha256() != data.limited(20, 10, seed=1).sha256()
    with pytest.raises(InvalidDataError, match="cannot draw 61 images from 60"):
        data.limited(61, None, seed=0)
