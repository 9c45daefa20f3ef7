"""`topb select --exclude`: the files that it reads, and what it says about those that it cannot use."""

from __future__ import annotations

import builtins
import json

import pytest

from support.command_line import topb
from support.scripted_server import whole_answer
from topb.v1.selection_pb2 import Exclusion, SelectBatchResponse

pytestmark = pytest.mark.sdk

DIGEST = bytes(range(16))


@pytest.fixture
def excluded(server):
    """Return a function that selects with these options and returns the exclusion that it sent."""

    def select(*options):
        requests = []

        def serve(request, context):
            requests.append(request)
            return whole_answer(SelectBatchResponse, pick_count=3)

        server.select_batch = serve
        outcome = topb("select", "/p", "--budget", 3, "--server", server.address, *options)
        assert outcome.exit_code == 0, outcome.err
        return requests[0].spec.exclude

    return select


@pytest.mark.parametrize("name", ["picks.csv", "picks.parquet", "picks.json"])
def test_what_topb_writes_can_be_excluded(name, server, excluded, tmp_path):
    path = tmp_path / name
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    if path.suffix == ".json":
        excluded()
        path.write_text(topb("select", "/p", "-b", 3, "--server", server.address, "--json").printed)
    else:
        excluded("--out", path)
    assert list(excluded("--exclude", path).ids) == ["image-1", "image-2", "image-3"]


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        ("ids.txt", "a\r\nb c\n\n7", ["a", "b c", "7"]),
        ("ids", "a\nb\n", ["a", "b"]),
        ("list.json", '["a", 7]', ["a", "7"]),
        ("rows.json", '[{"id": "a"}, {"id": 7}]', ["a", "7"]),
        ("none.json", '{"picks": []}', []),
        ("rows.csv", '\ufeffid,x\n"a\r\nb",1\n"c\u2028d",2\n,3\n', ["a\r\nb", "c\u2028d"]),
    ],
)
def test_ids_are_read_from_files_of_other_programs(name, text, ids, excluded, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert list(excluded("--exclude", tmp_path / name).ids) == ids


def test_a_bundle_and_its_labelled_set_give_ids_and_digests(excluded, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    digests = pa.array([DIGEST, None], pa.binary(16))
    parquet.write_table(pa.table({"id": ["a", "b"], "digest": digests}), tmp_path / "labelled.parquet")
    for path in (tmp_path, tmp_path / "labelled.parquet"):
        assert excluded("--exclude", path) == Exclusion(ids=["a", "b"], digests=[DIGEST, b""])


def test_a_column_of_integers_is_read(excluded, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"key": [3, None, 4]}), tmp_path / "keys.parquet")
    options = ("--exclude", tmp_path / "keys.parquet", "--exclude-column", "key")
    assert list(excluded(*options).ids) == ["3", "4"]


@pytest.mark.parametrize(
    "uri", ["s3://bucket/ids.parquet", "file:///data/ids.parquet", "/nowhere/ids.parquet"]
)
def test_what_this_machine_does_not_have_is_left_to_the_server(uri, excluded):
    assert excluded("--exclude", uri) == Exclusion(uri=uri, column="id")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("table.txt", "rank  id  score  class\n   1  a   0.5  cat\n", "--out or --json"),
        ("picks.csv", "key,rank\na,1\n", "no column 'id'; give one with --exclude-column: key, rank"),
        ("broken.json", "{", "cannot be read as JSON"),
        ("other.json", json.dumps({"a": 1}), "expected a JSON list"),
        ("floats.json", "[1.5]", "1.5 is not an id"),
        ("text.parquet", "text", "cannot be read as Parquet"),
        ("image.txt", b"\xff\xd8\xff", "not UTF-8"),
        ("folder/x", "", "it has no labelled.parquet"),
        (None, "", "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_usage_error(name, text, said, tmp_path):
    if name and name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / (name or "nothing")
    path.parent.mkdir(exist_ok=True)
    if name:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path = path.parent if name == "folder/x" else path
    outcome = topb("select", "/p", "--budget", 3, "--server", "localhost:1", "--exclude", path)
    assert (outcome.exit_code, said in outcome.err) == (2, True), outcome.err


def test_without_pyarrow_the_error_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "ids.parquet").touch()
    real = builtins.__import__

    def without_pyarrow(name, *arguments):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError(name=name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    outcome = topb("select", "/p", "-b", 3, "--server", "localhost:1", "--exclude", tmp_path / "ids.parquet")
    assert outcome.exit_code == 2
    assert "pip install pyarrow" in outcome.err
