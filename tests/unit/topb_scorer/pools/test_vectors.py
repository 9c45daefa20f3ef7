"""Pools of vectors: what is read from Parquet and NumPy files, what is skipped, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.pools import IMAGE, identities, opened
from support.vectors import (
    blocks,
    faults,
    fixed_lists,
    ids,
    random_probabilities,
    random_vectors,
    write_vectors,
)
from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.pools.pool import MAX_ID_BYTES
from topb_scorer.pools.vectors import VectorLayout, VectorShard

pytestmark = pytest.mark.scorer

VECTORS, PROBABILITIES = random_vectors(20), random_probabilities(20)
LISTS = {
    "fixed size": fixed_lists,
    "lists": lambda values: pa.array(list(values), pa.list_(pa.from_numpy_dtype(values.dtype))),
    "large lists": lambda values: pa.array(list(values), pa.large_list(pa.from_numpy_dtype(values.dtype))),
    "tensors": lambda values: pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values)),
}


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def refusal(path: Path, **layout: Any) -> tuple[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        opened(path, **layout)
    return caught.value.reason, str(caught.value)


def numbers(path: Path, **layout: Any) -> tuple[list[str], np.ndarray, np.ndarray]:
    found = blocks(opened(path, **layout))
    assert not any(block.faults for block in found)
    return (
        [id_ for block in found for id_ in block.ids],
        np.concatenate([block.vectors for block in found]),
        np.concatenate([block.probabilities for block in found]),
    )


@pytest.mark.parametrize(("kind", "dtype"), [*itertools.product(LISTS, ("f2", "f4", "f8"))])
def test_lists_of_any_kind_and_precision_are_read_as_float32(kind: str, dtype: str, tmp_path: Path) -> None:
    if (kind, dtype) == ("tensors", "f2"):
        pytest.skip("pyarrow writes no tensors of float16")
    given = VECTORS.astype(dtype)
    path = write(
        tmp_path / "v.parquet",
        {"id": range(20), "embedding": LISTS[kind](given), "probabilities": LISTS["lists"](PROBABILITIES)},
        row_group_size=7,
    )
    pool = opened(path)
    assert (pool.format, pool.vectors, pool.rows) == ("vectors", VectorLayout(8, 4), 20)
    read_ids, vectors, probabilities = numbers(path)
    assert read_ids == list(map(str, range(20)))
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, given.astype(np.float32))
    np.testing.assert_array_equal(probabilities, PROBABILITIES)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_numpy_files_give_the_same_rows_as_parquet(dtype: str, tmp_path: Path) -> None:
    given = VECTORS.astype(dtype)
    np.save(tmp_path / "v.npy", given)
    np.save(tmp_path / "v.probabilities.npy", PROBABILITIES)
    (tmp_path / "v.ids.txt").write_text("\r\n".join(ids(20)) + "\r\n")
    read_ids, vectors, probabilities = numbers(tmp_path / "v.npy")
    assert read_ids == ids(20)
    np.testing.assert_array_equal(vectors, given.astype(np.float32))
    np.testing.assert_array_equal(probabilities, PROBABILITIES)
    assert numbers(tmp_path)[0] == numbers(tmp_path / "*.npy", format="vectors")[0] == ids(20)


@pytest.mark.parametrize("array", [np.array(ids(20)), np.array(ids(20), "S"), np.arange(20)])
def test_ids_of_numpy_files_are_strings_or_integers(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    np.save(tmp_path / "v.ids.npy", array)
    assert numbers(tmp_path / "v.npy")[0] == (ids(20) if array.dtype.kind != "i" else list(map(str, array)))


def test_rows_may_be_numbered(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    assert numbers(tmp_path / "v.npy", id_column="#row")[0] == [f"v.npy:{row}" for row in range(20)]
    write_vectors(tmp_path / "w.parquet", VECTORS)
    assert numbers(tmp_path / "w.parquet", id_column="#row")[0][-1] == "w.parquet:19"


def test_shards_are_bounded_however_large_the_row_groups_are(tmp_path: Path) -> None:
    wide = random_vectors(2500, 4096)
    whole = write_vectors(tmp_path / "one.parquet", wide, row_group=2500)
    parts = write_vectors(tmp_path / "parts.parquet", wide, row_group=300)
    for path in (whole, parts):
        pool = opened(path)
        assert [shard.rows for shard in pool.shards] == [1024, 1024, 452]
        np.testing.assert_array_equal(numbers(path)[1], wide)
        # In any order, and some of them repeatedly.
        for number in (2, 0, 0, 1, 2):
            shard = pool.shards[number]
            assert isinstance(shard, VectorShard)
            read = np.concatenate([block.vectors for block in shard.blocks(with_probabilities=False)])
            np.testing.assert_array_equal(read, wide[number * 1024 :][:1024])


def test_the_identity_of_a_shard_changes_with_the_file_and_the_columns(tmp_path: Path) -> None:
    columns = {"id": ids(20), "embedding": fixed_lists(VECTORS), "other": fixed_lists(-VECTORS)}
    path = write(tmp_path / "v.parquet", columns)
    first, other = identities(path), identities(path, embedding_column="other")
    assert first == identities(path) != other
    write(path, columns | {"id": ids(20, "new")})
    assert identities(path) != first


def test_a_row_that_cannot_be_used_is_skipped_with_its_reason(tmp_path: Path) -> None:
    good, even = [0.0, 1.0], [0.5, 0.5]
    rows = {
        "good": (good, even),
        "": (good, even),
        "x" * (MAX_ID_BYTES + 1): (good, even),
        "no vector": (None, even),
        "short": ([0.0], even),
        "long": ([0.0, 1.0, 2.0], even),
        "empty": ([], even),
        "null inside": ([None, 1.0], even),
        "nan": ([float("nan"), 1.0], even),
        "infinite": ([float("inf"), 1.0], even),
        "beyond float32": ([1e300, 1.0], even),
        "no probabilities": (good, None),
        "three classes": (good, [0.5, 0.25, 0.25]),
        "logits": (good, [-1.0, 2.0]),
        "percent": (good, [40.0, 60.0]),
        "too little": (good, [0.4, 0.4]),
        "nan probability": (good, [float("nan"), 0.5]),
        "rounded": (good, [0.3333, 0.6663]),
    }
    path = write(
        tmp_path / "v.parquet",
        {
            "id": list(rows),
            "embedding": [vector for vector, _ in rows.values()],
            "probabilities": [probabilities for _, probabilities in rows.values()],
        },
    )
    assert faults(opened(path)) == {
        "v.parquet:1": "ID_MISSING",
        "x" * 64 + "…": "ID_TOO_LONG",
        "no vector": "VECTOR_MISSING",
        "short": "VECTOR_WIDTH",
        "long": "VECTOR_WIDTH",
        "empty": "VECTOR_WIDTH",
        **dict.fromkeys(("null inside", "nan", "infinite", "beyond float32"), "VECTOR_NOT_FINITE"),
        "no probabilities": "PROBABILITIES_MISSING",
        "three classes": "PROBABILITIES_WIDTH",
        **dict.fromkeys(("logits", "percent", "too little", "nan probability"), "PROBABILITIES_INVALID"),
    }
    (block,) = blocks(opened(path), with_probabilities=False)
    assert {fault.reason for fault in block.faults.values()} == {
        "ID_MISSING",
        "ID_TOO_LONG",
        "VECTOR_MISSING",
        "VECTOR_WIDTH",
        "VECTOR_NOT_FINITE",
    }


def test_empty_vectors_are_skipped(tmp_path: Path) -> None:
    no_numbers = pa.array([[], []], pa.list_(pa.float32()))
    path = write(tmp_path / "v.parquet", {"id": ids(2), "embedding": no_numbers})
    assert faults(opened(path)) == dict.fromkeys(ids(2), "VECTOR_WIDTH")
    path = write(
        tmp_path / "w.parquet", {"id": ids(2), "embedding": pa.array([None, None], pa.list_(pa.float32()))}
    )
    assert faults(opened(path)) == dict.fromkeys(ids(2), "VECTOR_MISSING")


def test_images_take_precedence_over_vectors_beside_them(tmp_path: Path) -> None:
    columns = {"id": ids(1), "image": [IMAGE], "embedding": [[0.5, 0.5]], "vector": [[0.5, 0.5, 0.5]]}
    path = write(tmp_path / "v.parquet", columns)
    assert (opened(path).format, opened(path).vectors) == ("parquet", None)
    assert opened(path, format="vectors").vectors == VectorLayout(2)
    assert opened(path, embedding_column="vector").vectors == VectorLayout(3)
    with pytest.raises(InvalidRequestError, match="expected images") as caught:
        _ = opened(path, format="vectors").image_shards
    assert caught.value.reason == "IMAGES_NEEDED"


@pytest.mark.parametrize(
    ("columns", "layout", "reason", "said"),
    [
        ({"id": ["a"], "embedding": [1.5]}, {}, "POOL_COLUMN_TYPE", "expected lists of float16"),
        ({"id": ["a"], "embedding": [[1]]}, {}, "POOL_COLUMN_TYPE", "list<element: int64>"),
        (
            {"id": ["a"], "embedding": [[0.5]], "probabilities": ["x"]},
            {},
            "POOL_COLUMN_TYPE",
            "probabilities",
        ),
        ({"id": ["a"], "other": [[0.5]]}, {"format": "vectors"}, "POOL_COLUMN_MISSING", "id, other"),
        ({"id": ["a"], "embedding": [[0.5]]}, {"probabilities_column": "p"}, "POOL_COLUMN_MISSING", "'p'"),
        ({"key": ["a"], "embedding": [[0.5]]}, {}, "POOL_COLUMN_MISSING", "key, embedding"),
        ({"id": ["a"], "other": [[0.5]]}, {}, "POOL_COLUMN_MISSING", "no column of vectors 'embedding'"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(
    columns: dict[str, Any], layout: dict[str, Any], reason: str, said: str, tmp_path: Path
) -> None:
    found, message = refusal(write(tmp_path / "v.parquet", columns), **layout)
    assert found == reason
    assert said in message


def test_files_of_different_sizes_are_refused(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.parquet", random_vectors(3, 8))
    write_vectors(tmp_path / "b.parquet", random_vectors(3, 9))
    reason, message = refusal(tmp_path)
    assert reason == "POOL_VECTORS_DIFFER"
    assert "vectors of 8 numbers" in message
    assert "vectors of 9 numbers" in message


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 2, 2), np.float32), "shape (3, 2, 2); expected two dimensions"),
        (np.zeros(3, np.float32), "shape (3,)"),
        (np.zeros((3, 0), np.float32), "shape (3, 0)"),
        (np.zeros((3, 2), np.int64), "int64; expected float16, float32 or float64"),
        (np.zeros((3, 2), np.complex64), "complex64"),
        (np.zeros((3, 2), np.longdouble), "expected float16"),
        (np.asfortranarray(random_vectors(3, 2)), "Fortran order"),
        (np.array([[{}]] * 3, object), "Python objects"),
    ],
)
def test_arrays_that_are_no_vectors_are_refused(array: np.ndarray, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    (tmp_path / "v.ids.txt").write_text("a\nb\nc")
    reason, message = refusal(tmp_path / "v.npy")
    assert reason == "POOL_NPY"
    assert said in message


def test_ids_that_do_not_match_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    reason, message = refusal(tmp_path / "v.npy")
    assert reason == "POOL_NPY"
    assert "v.ids.txt with one id on each line" in message
    assert "#row" in message
    (tmp_path / "v.ids.txt").write_text("a\nb\n")
    assert "has 20 vectors, but 2 ids beside it" in refusal(tmp_path / "v.npy")[1]
    np.save(tmp_path / "v.ids.npy", np.arange(20))
    assert "two files of ids" in refusal(tmp_path / "v.npy")[1]
    (tmp_path / "v.ids.txt").unlink()
    np.save(tmp_path / "v.ids.npy", np.array(["a"] * 20, object), allow_pickle=True)
    assert "Python objects" in refusal(tmp_path / "v.npy")[1]
    np.save(tmp_path / "v.ids.npy", np.arange(20))
    np.save(tmp_path / "v.probabilities.npy", PROBABILITIES[:19])
    assert "19 rows of probabilities" in refusal(tmp_path / "v.npy")[1]


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"PK" + content])
def test_a_damaged_numpy_file_cannot_be_read(damage: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "v.ids.txt").write_text("\n".join(ids(20)))
    (tmp_path / "v.npy").write_bytes(damage((tmp_path / "v.npy").read_bytes()))
    with pytest.raises(UnreadablePoolError) as caught:
        opened(tmp_path / "v.npy")
    assert caught.value.reason == "POOL_UNREADABLE"
