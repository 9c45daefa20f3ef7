from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import json_format

from support.bundles import deep_graph, write_bundle
from support.command_line import topb
from topb.v1 import bundle_pb2
from topb_scorer.bundle import IMPORTED_METHOD, Bundle, open_bundle
from topb_scorer.commands.model import describe

pytestmark = pytest.mark.scorer


def test_model_show_prints_the_bundle_as_text(bundle: Bundle) -> None:
    shown = topb("model", "show", bundle.path).printed
    for fact in (
        bundle.model_id,
        "aalu, round 0, seed 0",
        "2023-11-14T22:13:20Z",
        "uint8 16×16×3, stretch",
        "5: class 0, class 1",
        "2 images",
        "50.00%",
        "aalu, entropy, least_confidence, margin, random",
        "(N, 5) probabilities",
        "(N) score",
        f"encoder.onnx {(bundle.path / 'encoder.onnx').stat().st_size} bytes, verified",
        f"head.onnx {(bundle.path / 'head.onnx').stat().st_size} bytes, verified",
        bundle.encoder_id,
        "float32",
    ):
        assert fact in shown, fact


def test_an_imported_model_was_not_trained_by_a_method(bundle: Bundle) -> None:
    manifest = bundle_pb2.Bundle()
    manifest.CopyFrom(bundle.manifest)
    manifest.method = IMPORTED_METHOD
    shown = describe(replace(bundle, manifest=manifest))
    assert "\norigin " in shown
    assert "trained by" not in shown


def test_model_show_prints_the_manifest_as_json(bundle: Bundle) -> None:
    shown = topb("model", "show", bundle.path, "--json").printed
    assert json.loads(shown)["modelId"] == bundle.model_id
    assert json_format.Parse(shown, bundle_pb2.Bundle()) == bundle.manifest


def test_long_class_lists_are_cut_and_gates_are_shown(bundle: Bundle) -> None:
    manifest = bundle_pb2.Bundle()
    manifest.CopyFrom(bundle.manifest)
    manifest.ClearField("classes")
    manifest.classes.extend(f"c{i}" for i in range(100))
    manifest.ClearField("test_accuracy")
    manifest.gates.add(name="score", measured=2.5e-7, limit=1e-4, meaning="largest difference")
    shown = describe(Bundle(bundle.path, manifest))
    assert "100: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, …" in shown
    assert "c10" not in shown
    assert "not measured: there was no test set" in shown
    assert "2.5e-07, limit 0.0001: largest difference" in shown


def test_a_missing_or_incomplete_bundle_is_an_error(tmp_path: Path) -> None:
    assert "[BUNDLE_NOT_FOUND]" in topb("model", "show", tmp_path).err
    path = write_bundle(tmp_path)
    assert open_bundle(path).model_id == path.name
    (path / "encoder.onnx").write_bytes(b"")
    torn = topb("model", "show", path)
    assert torn.exit_code == 1
    assert "[BUNDLE_ALTERED]" in torn.err


def test_incomplete_bundles_are_not_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert topb("model", "list", tmp_path).printed == "No bundles.\n"
    whole, torn = write_bundle(tmp_path), write_bundle(tmp_path, deep_graph())
    (torn / "encoder.onnx").write_bytes(b"")
    assert [line.split() for line in topb("model", "list", tmp_path).printed.splitlines()] == [
        ["model", "method", "round", "classes", "labelled", "accuracy", "created"],
        [whole.name, "aalu", "0", "5", "2", "50.00%", "2023-11-14", "22:13"],
    ]
    assert torn.name in caplog.text
    (listed,) = json.loads(topb("model", "list", tmp_path, "--json").printed)
    assert (listed["id"], listed["test_accuracy"], len(listed["classes"])) == (whole.name, 0.5, 5)
    assert "[MODELS_NOT_FOUND]" in topb("model", "list", tmp_path / "nowhere").err
