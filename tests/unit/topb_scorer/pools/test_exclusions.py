from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from support.pools import ANYWHERE, IMAGE, parquet_bytes
from topb_scorer.errors import AccessDeniedError, InvalidRequestError, ScorerError, UnreadablePoolError
from topb_scorer.pools import AllowedRoots, read_exclusion
from topb_scorer.pools.pool import NO_DIGEST

pytestmark = pytest.mark.scorer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "labelled.parquet"
    columns = {"id": ["a", None, "b"], "number": [1, None, 3], "x": [0.5, 1, 2]}
    path.write_bytes(parquet_bytes(columns))
    return path


@pytest.mark.parametrize(("column", "expected"), [("id", ["a", "b"]), ("number", ["1", "3"])])
def test_ids_are_read_from_any_column_without_its_nulls(column: str, expected: list[str], path: Path) -> None:
    assert read_exclusion(str(path), column, ANYWHERE) == dict.fromkeys(expected, NO_DIGEST)


def test_digests_are_read_beside_the_ids(path: Path) -> None:
    known = bytes(range(16))
    digests = pa.array([known, known, None], pa.binary(16))
    path.write_bytes(parquet_bytes({"id": ["a", None, "b"], "digest": digests}))
    assert read_exclusion(str(path), "id", ANYWHERE) == {"a": known, "b": NO_DIGEST}


def test_a_column_of_another_type_has_no_digests(path: Path) -> None:
    path.write_bytes(parquet_bytes({"id": ["a"], "digest": ["fifteen letters…"]}))
    assert read_exclusion(str(path), "id", ANYWHERE) == {"a": NO_DIGEST}


@pytest.mark.parametrize(
    ("name", "column", "error", "reason"),
    [
        ("labelled.parquet", "x", InvalidRequestError, "POOL_COLUMN_TYPE"),
        ("labelled.parquet", "key", InvalidRequestError, "POOL_COLUMN_MISSING"),
        ("none.parquet", "id", InvalidRequestError, "EXCLUSION_NOT_FOUND"),
        ("", "id", InvalidRequestError, "EXCLUSION_NOT_FOUND"),
        ("../secret.parquet", "id", AccessDeniedError, "POOL_NOT_ALLOWED"),
        ("ids.txt", "id", UnreadablePoolError, "EXCLUSION_UNREADABLE"),
        ("not-utf8.parquet", "id", UnreadablePoolError, "EXCLUSION_UNREADABLE"),
    ],
)
def test_a_file_without_ids_is_refused(
    name: str, column: str, error: type[ScorerError], reason: str, path: Path, not_utf8: pa.Array
) -> None:
    (path.parent / "ids.txt").write_text("a\nb\n")
    (path.parent / "not-utf8.parquet").write_bytes(parquet_bytes({"id": not_utf8, "image": [IMAGE]}))
    with pytest.raises(error) as caught:
        read_exclusion(str(path.parent / name), column, AllowedRoots.below([path.parent]))
    assert caught.value.reason == reason
