from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.images import encode, random_image, random_pool, write_parquet
from support.pools import IMAGE, identities, items, opened, reason_of, reasons
from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.pools import AllowedRoots, PoolItem
from topb_scorer.pools.parquet import row_group_runs

pytestmark = pytest.mark.scorer


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InvalidRequestError, match=path.name) as caught:
        opened(path)
    return caught.value.reason


def test_a_shard_has_the_rows_of_its_row_groups_and_may_be_read_again(tmp_path: Path) -> None:
    rows = random_pool(150)
    pool = opened(write_parquet(tmp_path / "pool.parquet", rows, row_group=64))
    for _ in range(2):
        assert [(item.id, item.image) for shard in pool.shards for item in shard.items()] == rows


def test_rows_without_ids_are_named_by_file_and_number(tmp_path: Path) -> None:
    images = [encode(random_image(seed)) for seed in range(5)]
    for name in ("a/x.parquet", "b/x.parquet"):
        write(tmp_path / name, {"image": images}, row_group_size=2)
    found = items(tmp_path, id_column="#row")
    assert [item.id for item in found] == [f"{name}/x.parquet:{row}" for name in "ab" for row in range(5)]
    assert [item.image for item in found] == images * 2
    alone = items(tmp_path / "a/x.parquet", id_column="#row")
    assert [item.id for item in alone] == [f"x.parquet:{row}" for row in range(5)]
    by_glob = items(f"{tmp_path}/*/x.parquet", id_column="#row")
    assert [item.id for item in by_glob] == [item.id for item in found]
    assert not {*identities(tmp_path, id_column="#row")} & {*identities(tmp_path / "a", id_column="#row")}


def test_the_error_for_a_missing_id_column_says_how_to_number_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "pool.parquet", {"image": [IMAGE]})
    with pytest.raises(InvalidRequestError, match="give #row to number the rows") as caught:
        opened(path)
    assert caught.value.reason == "POOL_COLUMN_MISSING"


def test_a_column_named_like_the_row_number_is_a_column(tmp_path: Path) -> None:
    path = write(tmp_path / "pool.parquet", {"#row": ["a"], "image": [IMAGE]})
    assert [item.id for item in items(path, id_column="#row")] == ["a"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array(["x", "y"]), ["x", "y"]),
        (pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
        (pa.array(["x", "y"], pa.string_view()), ["x", "y"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([7, -8]), ["7", "-8"]),
        (pa.array([7, 2**64 - 1], pa.uint64()), ["7", "18446744073709551615"]),
        (pa.array([1, 2]).dictionary_encode(), ["1", "2"]),
    ],
)
def test_ids_are_strings_or_integers(tmp_path: Path, ids: pa.Array, expected: list[str]) -> None:
    path = write(tmp_path / "pool.parquet", {"id": ids, "image": [IMAGE, IMAGE]})
    assert [item.id for item in items(path)] == expected


@pytest.mark.parametrize(
    "images",
    [
        pa.array([IMAGE], pa.binary()),
        pa.array([IMAGE], pa.large_binary()),
        pa.array([IMAGE], pa.binary_view()),
        pa.array([{"bytes": IMAGE, "path": "a.png"}]),
        pa.array([{"path": "a.png", "bytes": IMAGE}]),
    ],
)
def test_images_are_binary_or_structs_with_bytes(tmp_path: Path, images: pa.Array) -> None:
    path = write(tmp_path / "pool.parquet", {"id": ["a"], "image": images})
    assert items(path) == [PoolItem("a", IMAGE)]


def test_columns_may_be_in_any_order_and_have_other_names(tmp_path: Path) -> None:
    columns = {"img": [IMAGE], "id": ["not this"], "weight": [0.5], "key": ["a"], "image": ["nor this"]}
    path = write(tmp_path / "pool.parquet", columns)
    assert items(path, id_column="key", image_column="img") == [PoolItem("a", IMAGE)]


def test_a_row_without_an_id_or_an_image_is_counted(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "pool.parquet",
        [(None, IMAGE), ("b", None), ("", IMAGE), ("d", b""), ("e", IMAGE)],
        row_group=3,
    )
    assert reasons(path) == {
        "pool.parquet:0:0": "ID_MISSING",
        "b": "IMAGE_MISSING",
        "pool.parquet:0:2": "ID_MISSING",
        "d": "",
        "e": "",
    }


@pytest.mark.parametrize("path_type", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_struct_without_bytes_is_read_at_its_path(path_type: pa.DataType, tmp_path: Path) -> None:
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "a.png").write_bytes(IMAGE)
    other = encode(random_image(2))
    paths = ["shots/a.png", "shots/a.png", "none.png", "/etc/hostname", None, "", "shots/a.png"]
    images = pa.StructArray.from_arrays(
        [pa.array([None, other, *[None] * 5], pa.binary()), pa.array(paths).cast(path_type)],
        ["bytes", "path"],
        mask=pa.array([False] * 6 + [True]),
    )
    path = write(tmp_path / "pool.parquet", {"id": list("abcdefg"), "image": images})
    found = items(path, roots=AllowedRoots.below([tmp_path]))
    assert [item.image for item in found[:2]] == [IMAGE, other]
    missing = ["IMAGE_MISSING"] * 3
    assert [reason_of(item.image) for item in found[2:]] == ["FILE_MISSING", "FILE_NOT_ALLOWED", *missing]


@pytest.mark.parametrize("fields", [{"bytes": pa.binary()}, {"bytes": pa.binary(), "path": pa.int64()}])
def test_a_struct_with_neither_bytes_nor_path_is_a_missing_image(
    fields: dict[str, pa.DataType], tmp_path: Path
) -> None:
    images = pa.array([None, {"bytes": None, "path": 1}], pa.struct(fields))
    path = write(tmp_path / "pool.parquet", {"id": ["a", "b"], "image": images})
    assert reasons(path) == {"a": "IMAGE_MISSING", "b": "IMAGE_MISSING"}


@pytest.mark.parametrize(
    ("row_group", "expected"),
    [(1, [512, 512, 176]), (3, [510, 510, 180]), (5, [5] * 240), (600, [600, 600])],
)
def test_small_row_groups_are_combined_into_one_shard(
    row_group: int, expected: list[int], tmp_path: Path
) -> None:
    rows = [(f"{i}", IMAGE) for i in range(1200)]
    pool = opened(write_parquet(tmp_path / "pool.parquet", rows, row_group=row_group))
    assert [shard.rows for shard in pool.shards] == expected
    assert len({shard.identity for shard in pool.shards}) == len(expected)
    assert [item.id for shard in pool.shards for item in shard.items()] == [id_ for id_, _ in rows]


def test_a_large_row_group_among_many_small_ones_is_a_shard() -> None:
    runs = row_group_runs([1, 2, 0, 700, 512, 1, 511, *[512] * 250])
    assert runs[:5] == [range(3), range(3, 4), range(4, 5), range(5, 7), range(7, 8)]


def test_identities_of_a_list_change_with_the_local_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(IMAGE)
    path = write(tmp_path / "pool.parquet", {"id": ["a", "b"], "path": ["a.png", "b.png"]}, row_group_size=1)
    first = identities(path)
    assert identities(path) == first
    os.utime(tmp_path / "b.png", ns=(1, 1))
    after = identities(path)
    assert after[0] == first[0]
    assert after[1] != first[1]


def test_the_image_column_takes_precedence_over_the_path_column(tmp_path: Path) -> None:
    path = write(tmp_path / "pool.parquet", {"id": ["a"], "path": ["nowhere.png"], "image": [IMAGE]})
    assert items(path) == [PoolItem("a", IMAGE)]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"image": [IMAGE]}, "POOL_COLUMN_MISSING"),
        ({"id": ["a"]}, "POOL_COLUMN_MISSING"),
        ({"id": [0.5], "image": [IMAGE]}, "POOL_COLUMN_TYPE"),
        ({"id": [True], "image": [IMAGE]}, "POOL_COLUMN_TYPE"),
        ({"id": [b"a"], "image": [IMAGE]}, "POOL_COLUMN_TYPE"),
        ({"id": ["a"], "image": ["a.png"]}, "POOL_COLUMN_TYPE"),
        ({"id": ["a"], "image": [{"data": IMAGE}]}, "POOL_COLUMN_TYPE"),
        ({"id": ["a"], "image": [[1, 2]]}, "POOL_COLUMN_TYPE"),
        ({"id": ["a"], "path": [IMAGE]}, "POOL_COLUMN_TYPE"),
    ],
)
def test_missing_or_unsuitable_columns_are_refused(
    tmp_path: Path, columns: dict[str, Any], reason: str
) -> None:
    assert refusal(write(tmp_path / "pool.parquet", columns)) == reason


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([IMAGE])], ["id", "id", "image"])
    pq.write_table(table, tmp_path / "pool.parquet")
    assert refusal(tmp_path / "pool.parquet") == "POOL_COLUMN_AMBIGUOUS"


def test_a_parquet_file_without_rows_is_an_empty_pool(tmp_path: Path) -> None:
    assert items(write_parquet(tmp_path / "pool.parquet", [])) == []


def test_an_invalid_or_truncated_parquet_file_is_unreadable(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pool.parquet", random_pool(40), row_group=16)
    whole = path.read_bytes()
    parts = (whole[:length] for length in range(0, len(whole), len(whole) // 25))
    for content in (b"PAR1", b"id,image\n", IMAGE, *parts):
        path.write_bytes(content)
        with pytest.raises(UnreadablePoolError, match=r"pool\.parquet") as caught:
            opened(path)
        assert caught.value.reason == "POOL_UNREADABLE"


def test_altered_bytes_in_a_page_with_a_checksum_are_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {"id": [f"{i}" for i in range(64)], "image": [rng.bytes(500) for _ in range(64)]}
    path = write(
        tmp_path / "pool.parquet", columns, compression="none", write_page_checksum=True, use_dictionary=False
    )
    whole = path.read_bytes()
    for position in range(3_000, 30_000, 5_000):
        altered = bytearray(whole)
        altered[position] ^= 0x10
        path.write_bytes(altered)
        with pytest.raises(UnreadablePoolError, match="row group 0") as caught:
            items(path)
        assert caught.value.reason == "POOL_UNREADABLE"


def test_rows_before_a_damaged_part_are_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pool.parquet", random_pool(64), row_group=16)
    pool = opened(path)
    start = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    altered = bytearray(path.read_bytes())
    altered[start : start + 200] = b"\xff" * 200
    path.write_bytes(altered)
    assert [len(list(shard.items())) for shard in pool.shards[:2]] == [16, 16]
    with pytest.raises(UnreadablePoolError):
        list(pool.shards[2].items())


def test_text_that_is_not_utf8_makes_the_pool_unreadable(tmp_path: Path, not_utf8: pa.Array) -> None:
    path = write(tmp_path / "pool.parquet", {"id": not_utf8, "image": [IMAGE]})
    with pytest.raises(UnreadablePoolError):
        items(path)


def test_identities_change_with_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "pool.parquet", {"id": ["a"], "key": ["b"], "image": [IMAGE]})
    assert identities(path) != identities(path, id_column="key")
