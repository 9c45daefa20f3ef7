"""The layouts of labelled sets, pools and test sets, and the errors for those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.images import encode
from topb.image_input import ImageInput
from topb_scorer.errors import NotFoundError, ScorerError
from topb_scorer.pools.pool import NO_DIGEST
from topb_trainer.config import ImageConfig
from topb_trainer.data.reading import image_input, read_labelled, read_pool, read_test
from topb_trainer.errors import InvalidDataError

from ..conftest import write_parquet

EIGHT = ImageInput(8, 8)


def solid(value: int, height: int = 8, width: int = 8) -> bytes:
    return encode(np.full((height, width, 3), value, np.uint8))


FOUR = [solid(value) for value in (10, 20, 30, 40)]
IDS = ["a", "b", "c", "d"]


def write_labelled(folder: Path, **columns: object) -> Path:
    return write_parquet(
        folder / "l.parquet", **{"ids": IDS, "images": FOUR, "labels": [0, 1, 0, 1], **columns}
    )


CAT_DOG = ("cat", "dog")
STRINGS = pa.array(["dog", "cat", "cat", "dog"])


@pytest.mark.parametrize(
    ("labels", "declared", "classes", "indices"),
    [
        pytest.param([2, 0, 0, 2], ["cat", "dog", "eel"], ("cat", "dog", "eel"), [2, 0, 0, 2], id="indices"),
        pytest.param([10, 9, 9, -3], None, ("-3", "9", "10"), [2, 1, 1, 0], id="numbers in their order"),
        pytest.param(STRINGS, None, CAT_DOG, [1, 0, 0, 1], id="strings"),
        pytest.param(STRINGS.cast(pa.large_string()), None, CAT_DOG, [1, 0, 0, 1], id="large strings"),
        pytest.param(STRINGS.dictionary_encode(), None, CAT_DOG, [1, 0, 0, 1], id="a dictionary"),
        pytest.param(STRINGS, ["dog", "cat"], ("dog", "cat"), [0, 1, 1, 0], id="strings in a declared order"),
    ],
)
def test_labels_are_names_or_indices_of_declared_classes(
    labels, declared, classes, indices, tmp_path: Path
) -> None:
    labelled = read_labelled(
        write_labelled(tmp_path, ids=[1, 2, 3, 4], labels=labels, classes=declared), EIGHT
    )
    assert labelled.classes == classes
    assert labelled.labels.tolist() == indices
    assert labelled.ids == ("1", "2", "3", "4")
    assert labelled.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40]


def test_a_column_of_paths_is_read_beside_the_parquet_file(tmp_path: Path) -> None:
    for name, image in zip(IDS, FOUR, strict=True):
        (tmp_path / f"{name}.png").write_bytes(image)
    table = pa.table({"id": IDS, "path": [f"{name}.png" for name in IDS], "label": [0, 1, 0, 1]})
    pq.write_table(table, tmp_path / "l.parquet")
    assert read_labelled(tmp_path / "l.parquet", EIGHT).images[:, 0, 0, 0].tolist() == [10, 20, 30, 40]


def test_an_image_folder_is_labelled_by_its_folders(tmp_path: Path) -> None:
    for name in ("dog/x.png", "cat/y.png", "cat/more/z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(FOUR[0])
    (tmp_path / "notes.txt").write_text("not named as an image, so no part of it")
    (tmp_path / "cat/.hidden.png").write_bytes(FOUR[0])
    labelled = read_labelled(tmp_path, EIGHT)
    assert labelled.classes == ("cat", "dog")
    found = dict(zip(labelled.ids, labelled.labels, strict=True))
    assert found == {"dog/x.png": 1, "cat/y.png": 0, "cat/more/z.png": 0}
    # The ids are those that the pool reader gives the same files.
    assert read_pool(tmp_path, EIGHT, {"dog/x.png": NO_DIGEST}).labelled == 1


def test_labelled_images_are_left_out_wherever_their_files_lie(tmp_path: Path) -> None:
    for name, image in zip(("cat/w.png", "cat/x.png", "dog/y.png", "dog/z.png"), FOUR, strict=True):
        for file in (tmp_path / "labelled" / name, tmp_path / "pool" / Path(name).name):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)
    (tmp_path / "pool/v.png").write_bytes(solid(50))
    (tmp_path / "pool/z.png").unlink()
    labelled = read_labelled(tmp_path / "labelled", EIGHT)
    pool = read_pool(tmp_path / "pool", EIGHT, labelled.digest_of())
    assert pool.ids == ("v.png",)
    assert (pool.labelled, pool.labelled_absent) == (3, 1)


def test_labelled_and_duplicate_ids_are_left_out_and_corrupt_images_are_counted(tmp_path: Path) -> None:
    ids = ["a", "b", "b", "c", "d", "e", "e"]
    images = [*FOUR[:3], b"no image", b"", FOUR[3], FOUR[3]]
    known = dict.fromkeys(("a", "not there"), NO_DIGEST)
    pool = read_pool(write_parquet(tmp_path / "p.parquet", ids, images), EIGHT, known)
    assert pool.ids == ("b", "e")
    assert pool.images[:, 0, 0, 0].tolist() == [20, 40]
    assert (pool.labelled, pool.labelled_absent, pool.duplicates) == (1, 1, 2)
    assert pool.skipped == {"IMAGE_EMPTY": 1, "IMAGE_FORMAT_UNKNOWN": 1}


def test_a_test_set_is_labelled_by_the_names_of_the_labelled_classes(tmp_path: Path) -> None:
    swapped = write_parquet(tmp_path / "t.parquet", IDS, FOUR, [0, 1, 2, 1], ["eel", "dog", "cat"])
    assert read_test(swapped, EIGHT, ("cat", "dog")).labels.tolist() == [-1, 1, 0, 1]
    undeclared = write_parquet(tmp_path / "u.parquet", IDS, FOUR, [0, 1, 1, 1])
    assert read_test(undeclared, EIGHT, ("cat", "dog")).labels.tolist() == [0, 1, 1, 1]
    assert read_test(undeclared, EIGHT, ("1", "7")).labels.tolist() == [-1, 0, 0, 0]


def test_images_are_brought_to_the_size_of_the_model(tmp_path: Path) -> None:
    path = write_labelled(tmp_path, images=[solid(value, 20 + value, 30) for value in (10, 20, 30, 40)])
    assert read_labelled(path, ImageInput(12, 16)).images.shape == (4, 12, 16, 3)


def test_the_default_size_is_the_common_size_of_small_images(tmp_path: Path) -> None:
    def size(*images: bytes) -> tuple[int, int]:
        labels = [0, 1, 0, 1][: len(images)]
        path = write_parquet(tmp_path / "l.parquet", IDS[: len(images)], images, labels)
        target = image_input(ImageConfig(), path)
        return target.height, target.width

    assert size(*[solid(0, 20, 30)] * 4) == (20, 30)
    assert size(*[solid(0, 65, 30)] * 4) == (224, 224)
    assert size(solid(0, 20, 30), solid(0, 21, 30)) == (224, 224)
    assert image_input(ImageConfig(height=5, width=6), tmp_path / "l.parquet") == ImageInput(5, 6)
    assert image_input(ImageConfig(height=5), tmp_path / "l.parquet") == ImageInput(5, 5)
    assert image_input(ImageConfig(width=6), tmp_path / "l.parquet") == ImageInput(6, 6)


# What cannot be used


def refused(path: Path, reason: str, match: str, error: type[Exception] = InvalidDataError) -> None:
    with pytest.raises(error, match=match) as caught:
        read_labelled(path, EIGHT)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("columns", "reason", "match"),
    [
        ({"labels": None}, "COLUMN_MISSING", "has no column 'label'; it has id, image"),
        ({"labels": [0, 1, None, 1]}, "LABEL_MISSING", "c has no label"),
        ({"labels": [0.5, 1, 1, 1]}, "LABEL_TYPE", "holds double"),
        ({"labels": [0, 1, 2, 1], "classes": CAT_DOG}, "LABEL_UNKNOWN", "c: label 2 .* 0 to 1 for 2 classes"),
        ({"labels": [0, 1, -1, 1], "classes": CAT_DOG}, "LABEL_UNKNOWN", "c: label -1 .* 0 to 1 for 2"),
        ({"labels": ["cat", "cow", "cat", "dog"], "classes": CAT_DOG}, "LABEL_UNKNOWN", "b: 'cow' is"),
        ({"labels": [5] * 4}, "TOO_FEW_LABELLED", "4 labelled images of 1 classes; at least two of each"),
        ({"ids": ["a"], "images": FOUR[:1], "labels": [0]}, "TOO_FEW_LABELLED", "1 labelled images of 1"),
        ({"ids": ["a", "b", "c", "b"]}, "DUPLICATE_ID", "the id 'b' occurs twice"),
        (
            {"images": [FOUR[0], b"broken", b"", FOUR[1]]},
            "IMAGE_UNUSABLE",
            r"the labelled image b cannot be used: IMAGE_FORMAT_UNKNOWN: .*\(1 others as well\)",
        ),
        (
            {"ids": pa.array([], pa.string()), "images": [], "labels": pa.array([], pa.int64())},
            "NO_IMAGES",
            "holds no labelled image",
        ),
        *(
            ({"classes": text}, "CLASSES_INVALID", "not a JSON list of distinct names")
            for text in ('"cat"', "[1, 2]", '["cat", "cat"]', "cat,dog")
        ),
    ],
)
def test_labels_and_images_that_cannot_be_used_are_named(
    columns: dict[str, object], reason: str, match: str, tmp_path: Path
) -> None:
    refused(write_labelled(tmp_path, **columns), reason, match)


def test_a_labelled_image_outside_the_class_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(FOUR[0])
    refused(tmp_path, "LABEL_MISSING", "x.png does not lie in the folder of a class")


def test_a_path_that_is_missing_or_not_parquet_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.parquet", "POOL_NOT_FOUND", "nothing.parquet", NotFoundError)
    (tmp_path / "text.parquet").write_text("text")
    refused(tmp_path / "text.parquet", "POOL_UNREADABLE", "cannot be read as Parquet", ScorerError)


def test_a_pool_with_nothing_unlabelled_is_an_error(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "p.parquet", IDS, [*FOUR[:3], b"broken"])
    with pytest.raises(InvalidDataError, match="3 are labelled, 1 could not") as caught:
        read_pool(path, EIGHT, dict.fromkeys("abc", NO_DIGEST))
    assert caught.value.reason == "POOL_EMPTY"


def test_a_test_set_of_other_classes_is_an_error(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", IDS, FOUR, ["w", "x", "y", "z"])
    with pytest.raises(InvalidDataError, match="none of a labelled class; expected cat, dog") as caught:
        read_test(path, EIGHT, ("cat", "dog"))
    assert caught.value.reason == "TEST_CLASSES"


def test_a_folder_of_parquet_files_is_read_as_one(tmp_path: Path) -> None:
    for part in (0, 1):
        ids, images = IDS[2 * part : 2 * part + 2], FOUR[2 * part : 2 * part + 2]
        write_parquet(tmp_path / f"{part}.parquet", ids, images, [0, 1], ["cat", "dog"])
    labelled = read_labelled(tmp_path, EIGHT)
    assert labelled.ids == tuple(IDS)
    assert labelled.classes == ("cat", "dog")
    assert labelled.labels.tolist() == [0, 1, 0, 1]
