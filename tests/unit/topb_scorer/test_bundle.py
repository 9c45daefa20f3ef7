from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.bundles import STRATEGIES, convolutional_graph, write_bundle
from topb.image_input import ImageInput, ResizeRule
from topb.v1 import bundle_pb2
from topb_scorer.bundle import open_bundle, sha256_of
from topb_scorer.errors import BundleError, NotFoundError

pytestmark = pytest.mark.scorer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path)


def rewrite_manifest(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def reason_of_refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert str(path) in str(caught.value)
    return caught.value.reason


def test_a_whole_bundle_tells_what_it_is(path: Path) -> None:
    bundle = open_bundle(path)
    assert bundle.model_id == hashlib.sha256(convolutional_graph()).hexdigest()[:16] == path.name
    assert bundle.graph.read_bytes() == convolutional_graph()
    assert bundle.labelled.is_file()
    assert bundle.input == ImageInput(16, 16, ResizeRule.STRETCH)
    assert bundle.strategies == set(STRATEGIES)
    assert bundle.output_shape("score") == ()
    assert bundle.output_shape("probabilities") == (5,)
    assert bundle.output_shape("features") == (8,)


def test_the_other_resize_rule_is_read_too(tmp_path: Path) -> None:
    path = write_bundle(tmp_path, resize=bundle_pb2.RESIZE_RULE_COVER_AND_CENTER_CROP)
    assert open_bundle(path).input.resize is ResizeRule.COVER_AND_CENTER_CROP


def test_a_bundle_may_be_moved(path: Path, tmp_path: Path) -> None:
    moved = shutil.move(path, tmp_path / "elsewhere")
    assert open_bundle(Path(moved)).model_id == path.name


def test_an_output_that_is_not_there_is_named_with_those_that_are(path: Path) -> None:
    with pytest.raises(BundleError, match=r"'depth'.*score, probabilities, features") as caught:
        open_bundle(path).output_shape("depth")
    assert caught.value.reason == "BUNDLE_OUTPUT_MISSING"


def test_what_is_no_bundle_is_not_found(path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (path / "manifest.json").unlink()
    for missing in (tmp_path / "nowhere", tmp_path / "empty", path, path / "scorer.onnx"):
        with pytest.raises(NotFoundError) as caught:
            open_bundle(missing)
        assert caught.value.reason == "BUNDLE_NOT_FOUND"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"3", b"null", b"[" * 100_000, b'{"schemaVersion": "one"}', b'{"input": 3}', b"\xff\xfe{}"],
)
def test_a_manifest_that_is_no_manifest_is_refused(path: Path, content: bytes) -> None:
    (path / "manifest.json").write_bytes(content)
    assert reason_of_refusal(path) == "BUNDLE_MANIFEST"


def test_a_manifest_cut_anywhere_is_refused(path: Path) -> None:
    whole = (path / "manifest.json").read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        (path / "manifest.json").write_bytes(whole[:length])
        assert reason_of_refusal(path) == "BUNDLE_MANIFEST"


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_schema_version_is_refused(path: Path, version: int) -> None:
    rewrite_manifest(path, lambda manifest: manifest.update(schemaVersion=version))
    assert reason_of_refusal(path) == "BUNDLE_SCHEMA_VERSION"


def test_a_later_layout_is_told_from_a_broken_manifest(path: Path) -> None:
    rewrite_manifest(path, lambda manifest: manifest.update(schemaVersion=2, shards=[1, 2]))
    assert reason_of_refusal(path) == "BUNDLE_SCHEMA_VERSION"


def test_a_field_added_within_this_layout_is_passed_over(path: Path) -> None:
    rewrite_manifest(path, lambda manifest: manifest.update(trainedOn="a later release"))
    assert open_bundle(path).model_id == path.name


@pytest.mark.parametrize("name", ["scorer.onnx", "labelled.parquet"])
def test_a_missing_file_is_noticed(path: Path, name: str) -> None:
    (path / name).unlink()
    assert reason_of_refusal(path) == "BUNDLE_INCOMPLETE"


@pytest.mark.parametrize("name", ["scorer.onnx", "labelled.parquet"])
def test_a_folder_in_place_of_a_file_is_noticed(path: Path, name: str) -> None:
    (path / name).unlink()
    (path / name).mkdir()
    assert reason_of_refusal(path) == "BUNDLE_INCOMPLETE"


@pytest.mark.parametrize("name", ["scorer.onnx", "labelled.parquet"])
def test_a_file_that_the_manifest_does_not_name_is_no_part_of_the_bundle(path: Path, name: str) -> None:
    def forget(manifest: dict[str, Any]) -> None:
        manifest["files"] = [file for file in manifest["files"] if file["name"] != name]

    rewrite_manifest(path, forget)
    assert reason_of_refusal(path) == "BUNDLE_INCOMPLETE"


@pytest.mark.parametrize("name", ["scorer.onnx", "labelled.parquet"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.999])
def test_a_torn_file_is_noticed(path: Path, name: str, keep: float) -> None:
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: int(keep * len(content))])
    assert reason_of_refusal(path) == "BUNDLE_ALTERED"


@pytest.mark.parametrize("name", ["scorer.onnx", "labelled.parquet"])
def test_one_bit_that_flipped_is_noticed(path: Path, name: str) -> None:
    content = bytearray((path / name).read_bytes())
    for position in (0, len(content) // 2, len(content) - 1):
        flipped = bytearray(content)
        flipped[position] ^= 1
        (path / name).write_bytes(flipped)
        assert reason_of_refusal(path) == "BUNDLE_ALTERED"


def test_bytes_at_the_end_of_a_file_are_noticed(path: Path) -> None:
    with (path / "scorer.onnx").open("ab") as file:
        file.write(b"\0")
    assert reason_of_refusal(path) == "BUNDLE_ALTERED"


@pytest.mark.parametrize("name", ["../scorer.onnx", "/etc/hostname", "sub/scorer.onnx"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(path: Path, name: str) -> None:
    rewrite_manifest(
        path, lambda manifest: manifest["files"].append({"name": name, "sha256": "0", "sizeBytes": 1})
    )
    assert reason_of_refusal(path) == "BUNDLE_MANIFEST"


@pytest.mark.parametrize("name", ["", ".", "..", "nothing.bin", "nul\0.bin"])
def test_a_manifest_that_names_no_file_is_refused(path: Path, name: str) -> None:
    rewrite_manifest(
        path, lambda manifest: manifest["files"].append({"name": name, "sha256": "0", "sizeBytes": 1})
    )
    assert reason_of_refusal(path) in {"BUNDLE_INCOMPLETE", "BUNDLE_MANIFEST"}


def test_a_model_id_that_is_not_the_graphs_is_refused(path: Path) -> None:
    rewrite_manifest(path, lambda manifest: manifest.update(modelId="0123456789abcdef"))
    assert reason_of_refusal(path) == "BUNDLE_MODEL_ID"


def test_another_graph_with_its_own_checksum_is_refused_by_the_model_id(path: Path) -> None:
    other = convolutional_graph(seed=1)
    (path / "scorer.onnx").write_bytes(other)

    def adopt(manifest: dict[str, Any]) -> None:
        for file in manifest["files"]:
            if file["name"] == "scorer.onnx":
                file.update(sha256=hashlib.sha256(other).hexdigest(), sizeBytes=str(len(other)))

    rewrite_manifest(path, adopt)
    assert reason_of_refusal(path) == "BUNDLE_MODEL_ID"


@pytest.mark.parametrize(
    "declared",
    [
        {"height": 0, "width": 16, "resize": "RESIZE_RULE_STRETCH"},
        {"height": 16, "width": -1, "resize": "RESIZE_RULE_STRETCH"},
        {"height": 16, "width": 16},
        {"height": 16, "width": 16, "resize": 77},
        {},
    ],
)
def test_an_input_that_no_image_can_be_made_into_is_refused(path: Path, declared: dict[str, Any]) -> None:
    rewrite_manifest(path, lambda manifest: manifest.update(input=declared))
    assert reason_of_refusal(path) == "BUNDLE_INPUT"


def test_the_checksum_is_that_of_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "large").write_bytes(content)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()
