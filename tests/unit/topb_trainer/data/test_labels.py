"""Labels of every kind of pool, and the classes of a set of several files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from support.images import encode
from topb.image_input import ImageInput
from topb_trainer.data.reading import read_labelled, read_test
from topb_trainer.data.sets import LabelledSet
from topb_trainer.errors import InvalidDataError

from ..conftest import write_parquet

EIGHT = ImageInput(8, 8)
FOUR = [encode(np.full((8, 8, 3), value, np.uint8)) for value in (10, 20, 30, 40)]
IDS = ["a", "b", "c", "d"]


def classes_of(labelled: LabelledSet) -> dict[str, str]:
    indices = labelled.labels.tolist()
    return {id_: labelled.classes[i] for id_, i in zip(labelled.ids, indices, strict=True)}


def write_csv(folder: Path, labels: list[str]) -> Path:
    for id_, image in zip(IDS, FOUR, strict=True):
        (folder / f"{id_}.png").write_bytes(image)
    rows = [f"{id_},{id_}.png,{label}" for id_, label in zip(IDS, labels, strict=True)]
    (folder / "l.csv").write_text("\n".join(["id,path,label", *rows]))
    return folder / "l.csv"


def write_tar(path: Path, labels: list[str | None]) -> Path:
    with tarfile.open(path, "w") as tar:
        for id_, image, label in zip(IDS, FOUR, labels, strict=True):
            members = {"png": image} | ({} if label is None else {"cls": label.encode()})
            for extension, content in members.items():
                header = tarfile.TarInfo(f"{id_}.{extension}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["dog", "cat", "cat", "dog"], ("cat", "dog")),
        (["10", "9", "9", "10"], ("9", "10")),
        (["007", "7", "7", "007"], ("007", "7")),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "webdataset"])
def test_a_csv_file_and_webdataset_have_labels(
    kind: str, labels: list[str], classes: tuple[str, ...], tmp_path: Path
) -> None:
    path = write_csv(tmp_path, labels) if kind == "csv" else write_tar(tmp_path / "l.tar", labels)
    labelled = read_labelled(path, EIGHT)
    assert labelled.classes == classes
    assert classes_of(labelled) == dict(zip(IDS, labels, strict=True))
    assert labelled.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40]


def test_the_text_of_a_number_means_the_index_of_a_known_class(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", ["1", "0\n", "0", "dog"])
    assert read_test(path, EIGHT, ("cat", "dog")).labels.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("kind", ["csv", "webdataset"])
def test_an_image_without_a_label_is_refused(kind: str, tmp_path: Path) -> None:
    path = (
        write_csv(tmp_path, ["x", "", "y", "x"])
        if kind == "csv"
        else write_tar(tmp_path / "l.tar", ["x", None, "y", "x"])
    )
    with pytest.raises(InvalidDataError, match="b has no label") as caught:
        read_labelled(path, EIGHT)
    assert caught.value.reason == "LABEL_MISSING"


def test_each_file_of_a_labelled_set_counts_by_its_own_list_of_classes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", IDS[:2], FOUR[:2], [0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "1.parquet", IDS[2:], FOUR[2:], [0, 1], ["eel", "cat"])
    labelled = read_labelled(tmp_path, EIGHT)
    assert labelled.classes == ("cat", "dog", "eel")
    assert classes_of(labelled) == {"a": "cat", "b": "dog", "c": "eel", "d": "cat"}


def test_a_file_of_names_joins_one_that_lists_its_classes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", IDS[:2], FOUR[:2], [0, 1], ["dog", "cat"])
    write_parquet(tmp_path / "1.parquet", IDS[2:], FOUR[2:], ["eel", "cat"])
    labelled = read_labelled(tmp_path, EIGHT)
    assert labelled.classes == ("dog", "cat", "eel")
    assert classes_of(labelled) == {"a": "dog", "b": "cat", "c": "eel", "d": "cat"}


def test_an_index_without_a_list_is_refused_if_another_file_has_one(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", IDS[:2], FOUR[:2], [0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "1.parquet", IDS[2:], FOUR[2:], [0, 1])
    with pytest.raises(InvalidDataError, match=r"1\.parquet: c has the label 0, .* `classes`") as caught:
        read_labelled(tmp_path, EIGHT)
    assert caught.value.reason == "LABEL_UNKNOWN"
