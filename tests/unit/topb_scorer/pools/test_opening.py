from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from support.pools import ANYWHERE, IMAGE, LocalFolder, opened, parquet_bytes, reasons, tar_bytes
from topb.pools import PoolFormatName
from topb_scorer.errors import InvalidRequestError, UnreadablePoolError
from topb_scorer.pools import AllowedRoots

pytestmark = pytest.mark.scorer

FILES = {
    "1.parquet": parquet_bytes({"id": ["row"], "image": [IMAGE]}),
    "1.tar": tar_bytes([("sample.png", IMAGE)]),
    "1.csv": b"id,path\nline,../a.png\n",
    "x.png": IMAGE,
    "deep/y.JPG": IMAGE,
    "notes.txt": b"notes",
}
FORMATS = get_args(PoolFormatName)


def refusal(uri: str | Path, format: str | None = None, roots: AllowedRoots = ANYWHERE) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        opened(uri, format=format, roots=roots)
    return caught.value.reason


@pytest.mark.parametrize(
    ("names", "format", "expected"),
    [
        ({"1.parquet", "x.png", "1.csv"}, None, {"row"}),
        ({"1.tar", "x.png", "1.csv"}, None, {"sample"}),
        ({"1.csv", "notes.txt"}, None, {"line"}),
        ({"1.csv", "x.png"}, None, {"1.csv", "x.png"}),
        ({"deep/y.JPG", "notes.txt"}, None, {"deep/y.JPG", "notes.txt"}),
        ({"1.csv", "x.png"}, "csv", {"line"}),
        ({"1.parquet", "1.tar"}, "webdataset", {"sample"}),
        ({"1.parquet", "1.tar"}, "parquet", {"row"}),
        ({"notes.txt"}, "image-folder", {"notes.txt"}),
        *((set(), format, set()) for format in FORMATS),
        ({"1.parquet", "1.tar"}, None, "POOL_FORMAT"),
        ({"notes.txt"}, None, "POOL_FORMAT"),
        ({"1.parquet"}, "zip", "POOL_FORMAT"),
        ({"1.parquet"}, "PARQUET", "POOL_FORMAT"),
        (set(), None, "POOL_FORMAT"),
    ],
)
def test_the_format_of_a_folder_is_detected_from_file_names_unless_it_is_given(
    names: set[str], format: str | None, expected: set[str] | str, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    (tmp_path / "pool").mkdir()
    for name in names:
        LocalFolder(tmp_path / "pool").put(name, FILES[name])
    if isinstance(expected, str):
        assert refusal(tmp_path / "pool", format) == expected
    else:
        assert set(reasons(tmp_path / "pool", format=format)) == expected


def test_with_a_given_format_a_file_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "pool"
    path.write_bytes(FILES["1.parquet"])
    assert refusal(path) == "POOL_FORMAT"
    for uri in (path, tmp_path / "po*"):
        assert reasons(uri, format="parquet") == {"row": ""}
    with pytest.raises(UnreadablePoolError):
        opened(path, format="webdataset")


def test_a_single_image_file_is_not_a_pool(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    assert refusal(tmp_path / "a.png", "image-folder") == refusal(tmp_path / "a.png") == "POOL_FORMAT"


def test_suffixes_are_matched_without_regard_to_case(tmp_path: Path) -> None:
    (tmp_path / "pool.TAR").write_bytes(FILES["1.tar"])
    assert reasons(tmp_path) == reasons(tmp_path / "pool.TAR") == {"sample": ""}


@pytest.mark.parametrize("roots", [ANYWHERE, AllowedRoots.below(["https://example.org/"])])
def test_pools_are_not_read_over_http(roots: AllowedRoots) -> None:
    assert refusal("https://example.org/pool.parquet", roots=roots) == "POOL_URI"
