from __future__ import annotations

import os

import pytest

import topb

pytestmark = pytest.mark.sdk


def test_the_images_of_a_folder_are_rows_sorted_by_id(tmp_path):
    names = ["b/x.JPG", "a.png", "b/c/y.webp", "notes.txt", ".hidden.png", ".git/z.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "linked").symlink_to(tmp_path / "b")
    rows = topb.images_in(tmp_path)
    assert len(rows) == 3
    assert list(rows) == [(name, name.encode()) for name in ("a.png", "b/c/y.webp", "b/x.JPG")]
    assert [id_ for id_, _ in rows[1:]] == ["b/c/y.webp", "b/x.JPG"]


def test_a_name_that_is_not_utf8_gets_the_id_that_the_server_would_give_it(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    assert list(topb.images_in(tmp_path)) == [("\\xff.png", b"x")]


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(topb.InvalidRequestError, match="is not a folder") as caught:
        topb.images_in(tmp_path / "nowhere")
    assert caught.value.reason == "POOL_INVALID"
