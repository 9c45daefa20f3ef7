from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from support.bundles import write_bundle
from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.commands.model import describe, run
from topb_scorer.errors import BundleError, NotFoundError

pytestmark = pytest.mark.scorer


def test_a_person_is_shown_what_the_bundle_is(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", str(bundle.path)]) == 0
    shown = capsys.readouterr().out
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
        f"scorer.onnx {bundle.graph.stat().st_size} bytes, verified",
    ):
        assert fact in shown, fact


def test_a_program_is_given_the_manifest(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", str(bundle.path), "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["modelId"] == bundle.model_id
    assert json_format.Parse(shown, bundle_pb2.Bundle()) == bundle.manifest


def test_many_classes_are_cut_short_and_gates_are_told(bundle: Bundle) -> None:
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


def test_what_is_no_bundle_or_a_torn_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        run(["show", str(tmp_path)])
    path = write_bundle(tmp_path)
    assert open_bundle(path).model_id == path.name
    (path / "scorer.onnx").write_bytes(b"")
    with pytest.raises(BundleError):
        run(["show", str(path)])


@pytest.mark.parametrize("arguments", [[], ["show"], ["destroy", "x"]])
def test_arguments_that_do_not_fit_end_with_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    assert caught.value.code == 2
    assert "usage: topb model" in capsys.readouterr().err
