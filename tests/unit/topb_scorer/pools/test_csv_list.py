from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.pools import IMAGE, identities, items, opened, reasons
from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.pools import PoolItem

pytestmark = pytest.mark.scorer


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shots").mkdir()
    for name in ("a.png", "b, c.png", 'd".png', "é.png"):
        (tmp_path / "shots" / name).write_bytes(IMAGE)
    return tmp_path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_list_is_rfc_4180_with_a_header(folder: Path, end: str, mark: str) -> None:
    lines = [
        mark + "note,id,path",
        "x,1,shots/a.png",
        '"two\nlines",2,"shots/b, c.png"',
        ',"3,3","shots/d"".png"',
        "",
        f",4,{folder}/shots/é.png",
        f",5,file://{folder}/shots/%C3%A9.png",
    ]
    path = write(folder / "list.csv", end.join(lines) + end)
    assert items(path) == [PoolItem(id_, IMAGE) for id_ in ("1", "2", "3,3", "4", "5")]
    assert opened(path).rows == 5


def test_columns_may_have_other_names_and_the_last_line_no_newline(folder: Path) -> None:
    path = write(folder / "list.csv", "id,file,key\nno,shots/a.png,yes")
    assert items(path, id_column="key", path_column="file") == [PoolItem("yes", IMAGE)]


def test_a_malformed_row_is_skipped_with_a_reason(folder: Path) -> None:
    lines = ["id,path", "short", "long,a,b", ",a.png", "empty,", "good,shots/a.png"]
    assert reasons(write(folder / "list.csv", "\n".join(lines))) == {
        "(no id) short": "ROW_MALFORMED",
        "(no id) long,a,b": "ROW_MALFORMED",
        "(no id) ,a.png": "ID_MISSING",
        "empty": "IMAGE_MISSING",
        "good": "",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "POOL_COLUMN_MISSING"),
        ("key,path\n1,a.png\n", "POOL_COLUMN_MISSING"),
        ("id,file\n1,a.png\n", "POOL_COLUMN_MISSING"),
        ("id;path\n1;a.png\n", "POOL_COLUMN_MISSING"),
        ("id,path,id\n1,a.png,2\n", "POOL_COLUMN_AMBIGUOUS"),
    ],
)
def test_a_header_without_the_columns_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"list\.csv") as caught:
        opened(write(tmp_path / "list.csv", text))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "content",
    [
        b"id,path\n1,\xff.png\n",
        b'id,path\n1,"never closed\n',
        b'id,path\n1,"closed" too early\n',
        b"id,path\r1,a.png\r",
        b"id,path\n1," + b"x" * 200_000 + b"\n",
        b"id,path\n1," + b"x" * 2_000_000,
        IMAGE,
    ],
)
def test_a_file_that_violates_the_format_is_unreadable(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnreadablePoolError, match=r"list\.csv") as caught:
        opened(write(tmp_path / "list.csv", content))
    assert caught.value.reason == "POOL_UNREADABLE"


def listing(ids: list[str]) -> str:
    return "id,path\n" + "".join(f'{id_},"a\nb/{id_}.png"\n' for id_ in ids)


def test_a_slice_is_found_again_by_its_offset(tmp_path: Path) -> None:
    ids = [f"img-{i:05d}" for i in range(4000)]
    path = write(tmp_path / "list.csv", listing(ids))
    shards = opened(path).shards
    assert 4 <= len(shards) <= 20
    read = [[item.id for item in shard.items()] for shard in reversed(shards)]
    assert [id_ for part in reversed(read) for id_ in part] == ids
    before = {shard.identity for shard in shards}
    after = identities(write(path, listing([*ids[:2000], "img-x", *ids[2000:]])))
    assert len(set(after) - before) <= 2


def test_repeated_rows_form_separate_shards(tmp_path: Path) -> None:
    ids = [f"img-{i:05d}" for i in range(3000)]
    pool = opened(write(tmp_path / "list.csv", listing(ids + ids + ids)))
    assert len({shard.identity for shard in pool.shards}) == len(pool.shards)
    assert pool.rows == 9000


def test_identities_change_only_with_the_rows_and_the_local_images(folder: Path) -> None:
    path = write(folder / "list.csv", "id,path\n1,shots/a.png\n2,https://example.org/b.png\n")
    first = identities(path)
    os.utime(path, ns=(1, 1))
    assert identities(path) == first
    os.utime(folder / "shots" / "a.png", ns=(1, 1))
    touched = identities(path)
    write(path, "id,path\n1,shots/a.png\n2,https://example.org/c.png\n")
    assert len({*first, *touched, *identities(path)}) == 3


def test_a_list_that_changes_while_it_is_read_is_unreadable(folder: Path) -> None:
    path = write(folder / "list.csv", "id,path\n1,shots/a.png\n2,shots/a.png\n")
    pool = opened(path)
    for text in ("id,path\n1,shots/a.png\n3,shots/a.png\n", "id,path\n1,shots/a.png\n", ""):
        write(path, text)
        with pytest.raises(UnreadablePoolError, match="changed"):
            list(pool.shards[0].items())
