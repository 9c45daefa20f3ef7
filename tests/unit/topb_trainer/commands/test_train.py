"""`topb train`, from files to a bundle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

from support.command_line import Outcome, topb
from support.images import encode
from topb_scorer.bundle import open_bundle
from topb_trainer.commands.experiment import run as experiment_command
from topb_trainer.commands.train import run as train_command

from ..conftest import write_parquet

TINY = """
[task]
width = 4
epochs = 2
batch_size = 32
horizontal_flip = false
[vae]
hidden = [16, 8]
latent_size = 4
[assistant]
hidden = [16, 16]
[cotrain]
epochs = 2
"""


@pytest.fixture
def tiny_preset(tmp_path: Path) -> str:
    (tmp_path / "tiny.toml").write_text(TINY)
    return str(tmp_path / "tiny.toml")


def train(files: Path, out: Path, preset: str, *more: object) -> Outcome:
    paths = ["--labelled", files / "labelled.parquet", "--pool", files / "pool.parquet", "--out", out]
    return topb("train", *paths, "--preset", preset, *more)


@pytest.mark.slow
def test_train_exports_a_bundle_and_prints_a_summary(
    digit_files: Path, tmp_path: Path, tiny_preset: str
) -> None:
    test = ("--test", digit_files / "test.parquet")
    told = train(digit_files, tmp_path / "bundles", tiny_preset, *test)
    assert "test images are labelled images" not in told.err
    assert told.exit_code == 0, told.err
    (path,) = (tmp_path / "bundles").iterdir()
    bundle = open_bundle(path)
    assert re.search(rf"model +{bundle.model_id} · aalu · round 0", told.out)
    assert str(path) in told.out
    assert "60 labelled of 10 classes · 140 unlabelled" in told.out
    assert f"test {bundle.manifest.test_accuracy:.1%} of 100" in told.out
    assert told.out.count("≤") == len(bundle.manifest.gates) == 7
    assert "pool: 60 rows left out because they are labelled: 60 of the 60 labelled images" in told.err
    assert bundle.manifest.labelled_count == 60
    assert (bundle.input.height, bundle.input.width) == (8, 8)


@pytest.mark.slow
def test_json_is_one_object_and_the_command_line_overrides_the_preset(
    digit_files: Path, tmp_path: Path, tiny_preset: str
) -> None:
    more = ("--json", "--seed", 7, "--round", 2, "--cotrain.epochs", 1, "--task.epochs=1")
    told = json.loads(train(digit_files, tmp_path / "bundles", tiny_preset, *more).printed)
    bundle = open_bundle(Path(told["path"]))
    assert told["model_id"] == bundle.model_id
    assert told["pool"] == {
        "unlabelled": 140,
        "labelled": 60,
        "labelled_absent": 0,
        "duplicates": 0,
        "skipped": {},
    }
    assert told["test_accuracy"] is None
    assert (told["method"], told["round"], bundle.manifest.seed) == ("aalu", 2, 7)
    configuration = bundle.manifest.configuration
    assert configuration["task"]["epochs"] == 1  # command line over preset
    assert configuration["task"]["width"] == 4  # preset over default
    assert configuration["cotrain"]["ranking_weight"] == 10  # default


@pytest.mark.slow
def test_test_classes_that_could_not_be_learned_are_reported(
    digit_files: Path, digits, tmp_path: Path, tiny_preset: str
) -> None:
    images, labels = digits
    encoded = [encode(image) for image in images[:40]]
    names = [f"digit {label}" for label in labels[:40]]
    known = [i for i in range(40) if labels[i] < 3]
    parts = [[values[i] for i in known] for values in (encoded, names)]
    write_parquet(tmp_path / "l.parquet", known, *parts, [f"digit {i}" for i in range(4)])
    write_parquet(tmp_path / "t.parquet", list(range(40)), encoded, names)
    paths = ("--labelled", tmp_path / "l.parquet", "--test", tmp_path / "t.parquet")
    told = train(digit_files, tmp_path / "b", tiny_preset, *paths).err
    unknown = sum(label > 3 for label in labels[:40])
    assert f"test: {unknown} images have classes that the labelled set does not have" in told
    assert "test: no labelled image shows digit 3;" in told
    assert f"test: {len(known)} of the 40 test images are labelled images" in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--labelled", "pool.parquet"], ["no column 'label'"]),
        (["--test", "nowhere.parquet"], ["no pool at ", "nowhere.parquet", "[POOL_NOT_FOUND]"]),
        (["--round", "-1"], ["the round is -1; expected an integer from 0", "[INVALID_CONFIGURATION]"]),
        (["--round", str(2**31)], ["the round is 2147483648", "[INVALID_CONFIGURATION]"]),
        (["--out", "labelled.parquet"], ["labelled.parquet cannot be written to", "[OUT_UNUSABLE]"]),
        (["--preset", "papr"], ["no preset 'papr'", "[PRESET_NOT_FOUND]"]),
        (
            ["--cotrain.batch-size", "3"],
            ["batch_size is 3; expected an even number", "[INVALID_CONFIGURATION]"],
        ),
        (
            ["--task.processes", "31", "--task.batch-size", "64", "--pool", "labelled.parquet"],
            ["60 labelled images are too few for 31 processes", "[TOO_FEW_IMAGES]"],
        ),
    ],
)
def test_errors_of_the_train_command_have_reasons(
    digit_files: Path, tmp_path: Path, tiny_preset: str, more: list[str], said: list[str]
) -> None:
    more = [str(digit_files / word) if word.endswith(".parquet") else word for word in more]
    outcome = train(digit_files, tmp_path, tiny_preset, *more)
    assert outcome.exit_code == 1
    assert all(words in outcome.err for words in said), outcome.err
    assert not list(tmp_path.glob("*/*.onnx"))


def test_too_few_gpus_are_reported_before_any_image_is_read(
    tmp_path: Path, tiny_preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    outcome = train(
        tmp_path / "nowhere", tmp_path / "b", tiny_preset, "--device", "cuda", "--task.processes", 2
    )
    assert "task.processes is 2, starting at cuda, but torch sees 1" in outcome.err
    assert "[DEVICE_UNAVAILABLE]" in outcome.err


def test_a_failed_call_leaves_no_directory(digit_files: Path, tmp_path: Path, tiny_preset: str) -> None:
    outcome = train(digit_files, tmp_path / "new" / "bundles", tiny_preset, "--test", tmp_path / "nowhere")
    assert "[POOL_NOT_FOUND]" in outcome.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "near"), [("--task.epoch 3", "'--task.epochs'"), ("--task.stem cifer", "'cifar'?")]
)
def test_a_mistyped_option_or_choice_is_answered_with_the_nearest(words: str, near: str) -> None:
    outcome = topb("train", "--labelled", "l", "--pool", "p", "--out", "o", *words.split())
    assert outcome.exit_code == 2
    assert near in outcome.err


def test_help_names_every_setting_and_preset() -> None:
    shown = topb("train", "--help").printed
    assert shown.startswith("Usage: topb train")
    for words in ("--task.width", "--cotrain.ranking-weight", "--vae.latent-size", "--seed", "paper, small"):
        assert words in shown


@pytest.mark.parametrize("command", [train_command, experiment_command])
def test_every_option_has_a_help_text(command: click.Command) -> None:
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert len(options) > 40
    assert [option.opts for option in options if not option.help] == []


@pytest.mark.parametrize("command", ["train", "experiment"])
def test_help_and_completion_do_not_import_torch(command: str) -> None:
    program = (
        "import sys; from topb.commands import main\n"
        f"main(['{command}', '--help']); print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"
