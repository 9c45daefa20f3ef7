"""`topb import`, from an ONNX file to a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support.command_line import Outcome, topb
from support.images import random_pool, write_parquet
from support.onnx_models import CLASSES, IMAGENET, SIZE, classifier, saved
from topb_scorer.bundle import open_bundle

VALUES = ("--features", "embedding", "--logits", "logits")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(classifier(), tmp_path / "model.onnx")


def imported(model: Path, *more: object) -> Outcome:
    return topb("import", model, "--out", model.parent / "bundles", *more)


def test_a_classifier_becomes_a_bundle_and_a_summary(model: Path) -> None:
    told = imported(model, *VALUES, *IMAGENET)
    assert told.exit_code == 0, told.err
    (path,) = (model.parent / "bundles").iterdir()
    bundle = open_bundle(path)
    assert f"model      {bundle.model_id} · imported · encoder {bundle.encoder_id}" in told.out
    assert f"images     {SIZE} × {SIZE} · stretch · 0 labelled" in told.out
    assert f"outputs    features of 8 numbers · {CLASSES} classes" in told.out
    assert "checked    on synthetic images" in told.out
    assert told.out.count("≤") == len(bundle.manifest.gates)
    assert list(bundle.manifest.classes) == ["0", "1", "2", "3", "4"]


def test_json_tells_what_was_checked_labelled_and_named(model: Path) -> None:
    pool = write_parquet(model.parent / "pool.parquet", random_pool(12))
    labelled = model.parent / "labelled.parquet"
    pq.write_table(pq.read_table(pool).slice(0, 3), labelled)
    names = model.parent / "classes.txt"
    names.write_text("cat\ndog\neel\nfox\ngnu\n")
    more = ("--images", pool, "--labelled", labelled, "--classes", names, "--json")
    told = json.loads(imported(model, *VALUES, *IMAGENET, *more).printed)
    assert told["checked_images"] == "images of pool.parquet"
    assert (told["labelled"], told["classes"], told["features"]) == (3, 5, 8)
    bundle = open_bundle(Path(told["path"]))
    assert list(bundle.manifest.classes) == ["cat", "dog", "eel", "fox", "gnu"]
    assert bundle.manifest.labelled_count == 3


def test_a_preprocessor_config_beside_the_model_is_read_and_overridden(model: Path) -> None:
    config = {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": SIZE, "resample": 3}
    config |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (model.parent / "preprocessor_config.json").write_text(json.dumps(config))
    told = imported(model, *VALUES, "--json", "--std", 0.25)
    bundle = open_bundle(Path(json.loads(told.printed)["path"]))
    assert (bundle.input.height, bundle.input.resize.value) == (20, "cover_and_center_crop")
    pixels = bundle.manifest.configuration["import"]["input"]["pixels"]
    assert (list(pixels["mean"]), list(pixels["std"])) == ([0.5] * 3, [0.25] * 3)
    assert "bicubic" in told.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (IMAGENET, "try --features embedding. [IMPORT_FEATURES]"),
        ((*VALUES, "--size", "16x"), "'16x' is no size"),
        ((*VALUES, *IMAGENET, "--classes", "missing.txt"), "missing.txt cannot be read as a list of classes"),
        (("--features", "embedding", *IMAGENET, "--classes", "c.txt"), "neither --logits nor"),
        (VALUES, "[IMPORT_NORMALISATION]"),
    ],
)
def test_what_is_missing_or_wrong_is_told_and_nothing_is_written(
    more: tuple[object, ...], message: str, model: Path
) -> None:
    told = imported(model, *more)
    assert told.exit_code != 0
    assert message in told.err
    assert not (model.parent / "bundles").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "a\nb\n"),
        ("classes.json", '["a"]'),
        ("config.json", '{"id2label": {"0": "a", "1": "b"}}'),
        ("config.json", '{"id2label": {"0": "a", "7": "b"}}'),
    ],
)
def test_a_list_of_classes_of_the_wrong_length_is_refused(name: str, content: str, model: Path) -> None:
    (model.parent / name).write_text(content)
    told = imported(model, *VALUES, *IMAGENET, "--classes", model.parent / name)
    assert "[IMPORT_CLASSES]" in told.err
    assert "the model has 5" in told.err or "indices are not" in told.err


def test_the_config_of_hugging_face_names_the_classes(model: Path) -> None:
    config = model.parent / "config.json"
    config.write_text(json.dumps({"id2label": {str(i): name for i, name in enumerate("edcba")}}))
    told = json.loads(imported(model, *VALUES, *IMAGENET, "--classes", config, "--json").printed)
    assert list(open_bundle(Path(told["path"])).manifest.classes) == list("edcba")


@pytest.mark.slow
def test_importing_needs_no_torch(model: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from topb_trainer.commands.import_ import run\n"
        "run.main(sys.argv[1:], standalone_mode=False)"
    )
    arguments = [model, "--out", model.parent / "bundles", *VALUES, *IMAGENET]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give one of MODEL, --torch and --timm."),
        (("model.onnx", "--timm", "resnet18"), "Give one of MODEL, --torch and --timm."),
        (("model.onnx", "--weights", "w.pth"), "--weights belongs to --torch or --timm"),
        (("--torch", "a:b", "--features", "f"), "a torch module gives features and logits itself"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    told = topb("import", *arguments, "--out", tmp_path / "bundles")
    assert told.exit_code == 2
    assert message in told.err


@pytest.mark.slow
def test_a_torch_module_is_imported_by_the_name_of_its_factory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
    (tmp_path / "users_model.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    more = ("--size", 8, "--mean", 0.5, "--std", 0.5, "--json")
    told = topb("import", "--torch", "users_model:make", "--out", tmp_path / "bundles", *more)
    assert json.loads(told.printed)["features"] == 4
