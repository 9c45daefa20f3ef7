from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import json_format

from support.bundles import STRATEGIES, convolutional_graph, write_bundle
from topb.image_input import ImageInput, ResizeRule
from topb.v1 import bundle_pb2
from topb_scorer.bundle import encoder_id_of, model_id_of, open_bundle
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


@pytest.mark.parametrize("resize", [ResizeRule.STRETCH, ResizeRule.COVER_AND_CENTER_CROP])
def test_an_opened_bundle_exposes_its_manifest(resize: ResizeRule, tmp_path: Path) -> None:
    path = write_bundle(tmp_path, resize=resize)
    bundle = open_bundle(path)
    assert bundle.model_id == path.name
    assert bundle.encoder is not None
    assert bundle.encoder.read_bytes() == convolutional_graph().encoder
    assert bundle.head is not None
    assert bundle.head.read_bytes() == convolutional_graph().head
    assert np.array_equal(bundle.labelled_features(), np.zeros((2, 8)))
    assert bundle.input == ImageInput(16, 16, resize)
    assert bundle.strategies == set(STRATEGIES)
    shapes = [bundle.output_shape(name) for name in ("score", "probabilities", "features")]
    assert shapes == [(), (5,), (8,)]


def test_a_bundle_can_be_moved_to_another_directory(path: Path, tmp_path: Path) -> None:
    moved = shutil.move(path, tmp_path / "elsewhere")
    assert open_bundle(Path(moved)).model_id == path.name


def test_a_missing_output_is_an_error_that_names_the_others(path: Path) -> None:
    with pytest.raises(BundleError, match=r"'depth'.*score, probabilities, features") as caught:
        open_bundle(path).output_shape("depth")
    assert caught.value.reason == "BUNDLE_OUTPUT_MISSING"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1" + bytes(40) + b"PAR1",
        pa.table({"id": ["a"]}),
        pa.table({"feature": ["a"]}),
        pa.table({"feature": [[0.0] * 7]}),
        pa.table({"feature": pa.array([[0.0] * 8, None], pa.list_(pa.float32(), 8))}),
        None,
    ],
    ids=["empty", "corrupt", "no column", "text", "too narrow", "null", "deleted"],
)
def test_a_labelled_set_that_cannot_be_read_is_a_fault_of_the_bundle(
    content: bytes | pa.Table | None, path: Path
) -> None:
    bundle = open_bundle(path)
    if isinstance(content, bytes):
        bundle.labelled.write_bytes(content)
    elif content is None:
        bundle.labelled.unlink()
    else:
        pq.write_table(content, bundle.labelled)
    with pytest.raises(BundleError, match="export the model again") as caught:
        bundle.labelled_features()
    assert caught.value.reason == "BUNDLE_LABELLED"
    assert f"labelled.parquet of model {bundle.model_id}" in str(caught.value)
    assert str(path) not in str(caught.value)


def test_a_labelled_set_on_a_failing_disk_is_no_fault_of_the_bundle(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    bundle = open_bundle(path)
    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(OSError, match="Input/output error"):
        bundle.labelled_features()


def test_a_path_without_a_bundle_is_not_found(path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (path / "manifest.json").unlink()
    for missing in (tmp_path / "nowhere", tmp_path / "empty", path, path / "encoder.onnx"):
        with pytest.raises(NotFoundError) as caught:
            open_bundle(missing)
        assert caught.value.reason == "BUNDLE_NOT_FOUND"


def test_an_invalid_or_truncated_manifest_is_refused(path: Path) -> None:
    whole = (path / "manifest.json").read_bytes().rstrip()
    invalid = (b"3", b"null", b"[" * 100_000, b'{"schemaVersion": "one"}', b'{"input": 3}', b"\xff\xfe{}")
    for content in (*invalid, *(whole[:length] for length in range(0, len(whole), 97))):
        (path / "manifest.json").write_bytes(content)
        assert reason_of_refusal(path) == "BUNDLE_MANIFEST"


def test_a_field_added_within_this_layout_is_ignored(path: Path) -> None:
    rewrite_manifest(path, lambda manifest: manifest.update(trainedOn="a later release"))
    assert open_bundle(path).model_id == path.name


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        *(({"schemaVersion": version}, "BUNDLE_SCHEMA_VERSION") for version in (0, 1, 3, 99)),
        ({"schemaVersion": 3, "shards": [1, 2]}, "BUNDLE_SCHEMA_VERSION"),
        ({"modelId": "0123456789abcdef"}, "BUNDLE_MODEL_ID"),
        ({"encoderId": "0123456789abcdef"}, "BUNDLE_MODEL_ID"),
        ({"encoderId": ""}, "BUNDLE_MODEL_ID"),
        ({"encoderOutputs": []}, "BUNDLE_MODEL_ID"),
        ({"input": {"height": 0, "width": 16, "resize": "RESIZE_RULE_STRETCH"}}, "BUNDLE_INPUT"),
        ({"input": {"height": 16, "width": -1, "resize": "RESIZE_RULE_STRETCH"}}, "BUNDLE_INPUT"),
        ({"input": {"height": 16, "width": 16}}, "BUNDLE_INPUT"),
        ({"input": {"height": 16, "width": 16, "resize": 77}}, "BUNDLE_INPUT"),
        ({"input": {}}, "BUNDLE_INPUT"),
    ],
)
def test_a_manifest_with_unusable_fields_is_refused(path: Path, fields: dict[str, Any], reason: str) -> None:
    rewrite_manifest(path, lambda manifest: manifest.update(fields))
    assert reason_of_refusal(path) == reason


def forget(path: Path, name: str) -> None:
    rewrite_manifest(
        path,
        lambda manifest: manifest.update(files=[file for file in manifest["files"] if file["name"] != name]),
    )


def replace_by_folder(path: Path, name: str) -> None:
    (path / name).unlink()
    (path / name).mkdir()


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx", "labelled.parquet"])
@pytest.mark.parametrize("lose", [lambda path, name: (path / name).unlink(), replace_by_folder, forget])
def test_a_missing_file_is_noticed(path: Path, name: str, lose: Callable[[Path, str], None]) -> None:
    lose(path, name)
    assert reason_of_refusal(path) == "BUNDLE_INCOMPLETE"


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx", "labelled.parquet"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:0],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    ],
)
def test_a_damaged_file_is_noticed(path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (path / name).write_bytes(damage((path / name).read_bytes()))
    assert reason_of_refusal(path) == "BUNDLE_ALTERED"


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        *((name, {"BUNDLE_MANIFEST"}) for name in ("../encoder.onnx", "/etc/hostname", "sub/encoder.onnx")),
        *(
            (name, {"BUNDLE_INCOMPLETE", "BUNDLE_MANIFEST"})
            for name in ("", ".", "..", "nothing.bin", "nul\0.bin")
        ),
    ],
)
def test_a_manifest_lists_only_files_of_the_bundle(path: Path, name: str, reasons: set[str]) -> None:
    rewrite_manifest(
        path, lambda manifest: manifest["files"].append({"name": name, "sha256": "0", "sizeBytes": 1})
    )
    assert reason_of_refusal(path) in reasons


@pytest.mark.parametrize(("name", "part"), [("encoder.onnx", 0), ("head.onnx", 1)])
def test_another_graph_with_its_own_checksum_is_refused_by_the_model_id(
    path: Path, name: str, part: int
) -> None:
    other = convolutional_graph(seed=1)[part]
    (path / name).write_bytes(other)

    def adopt(manifest: dict[str, Any]) -> None:
        for file in manifest["files"]:
            if file["name"] == name:
                file.update(sha256=hashlib.sha256(other).hexdigest(), sizeBytes=str(len(other)))

    rewrite_manifest(path, adopt)
    assert reason_of_refusal(path) == "BUNDLE_MODEL_ID"


def test_a_directory_of_bundles_is_refused_with_the_name_of_one(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    with pytest.raises(NotFoundError, match=f"give a bundle in it, such as {bundle}"):
        open_bundle(tmp_path)


def test_the_refusal_of_an_older_layout_says_how_to_make_a_new_bundle(path: Path) -> None:
    rewrite_manifest(path, lambda manifest: manifest.update(schemaVersion=1))
    with pytest.raises(BundleError, match="repeat `topb train` with this version of topb"):
        open_bundle(path)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["class 0", "class 1", "class 2", "class 3", "other"]},
        {"labelledSha256": "1" * 64},
        {"testAccuracy": 0.75},
        {"round": 1},
        {"configuration": {"task": {"width": 16}}},
        {"input": {"height": 16, "width": 16, "resize": "RESIZE_RULE_COVER_AND_CENTER_CROP"}},
    ],
)
def test_the_model_id_covers_what_a_user_would_tell_models_apart_by(
    path: Path, change: dict[str, Any]
) -> None:
    before = open_bundle(path).manifest
    after = json_format.ParseDict(json_format.MessageToDict(before) | change, bundle_pb2.Bundle())
    assert model_id_of(after) != before.model_id
    assert (encoder_id_of(after) != before.encoder_id) == ("input" in change)


def test_the_model_id_does_not_depend_on_time_library_versions_or_measured_gates(path: Path) -> None:
    manifest = open_bundle(path).manifest
    manifest.create_time.FromSeconds(1)
    manifest.library_versions["torch"] = "9"
    manifest.gates.add(name="it", measured=1)
    assert model_id_of(manifest) == path.name


def test_a_bundle_may_lack_encoder_assistant_classifier_or_head(tmp_path: Path) -> None:
    shapes = {"features": (8,), "score": (), "probabilities": (5,)}
    for number, (encoder, outputs, classes) in enumerate(
        [
            (False, ["score", "probabilities", "features"], 5),
            (True, ["probabilities", "features"], 5),
            (True, ["score", "features"], 0),
            (True, ["features"], 0),
            (False, ["features"], 0),
        ]
    ):
        bundle = open_bundle(write_bundle(tmp_path / str(number), encoder=encoder, outputs=outputs))
        assert bundle.output_shapes == {name: shapes[name] for name in outputs}
        assert (bundle.encoder is not None, bundle.encoder_id != "") == (encoder, encoder)
        assert (bundle.head is not None, bundle.class_count) == (len(outputs) > 1, classes)
        assert bundle.labelled_features().shape == (2, 8)
