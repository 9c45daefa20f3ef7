"""`topb train`, from files to a bundle."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from topb_scorer.bundle import open_bundle
from topb_scorer.errors import NotFoundError
from topb_trainer.commands.train import run
from topb_trainer.errors import ConfigurationError, InvalidDataError

from .conftest import write_parquet

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


def arguments(files: Path, out: Path, preset: str, *more: str) -> list[str]:
    paths = [
        "--labelled",
        str(files / "labelled.parquet"),
        "--pool",
        str(files / "pool.parquet"),
        "--out",
        str(out),
    ]
    return [*paths, "--preset", preset, *more]


@pytest.mark.slow
def test_it_trains_exports_and_says_what_came_of_it(
    digit_files: Path, tmp_path: Path, tiny_preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    test = ("--test", str(digit_files / "test.parquet"))
    assert run(arguments(digit_files, tmp_path / "bundles", tiny_preset, *test)) == 0
    told = capsys.readouterr()
    (path,) = (tmp_path / "bundles").iterdir()
    bundle = open_bundle(path)
    assert re.search(rf"model +{bundle.model_id} · aalu · round 0", told.out)
    assert str(path) in told.out
    assert "60 labelled of 10 classes · 140 unlabelled" in told.out
    assert f"test {bundle.manifest.test_accuracy:.1%} of 100" in told.out
    assert told.out.count("≤") == len(bundle.manifest.gates) == 5
    assert "pool: 60 rows left out, as their ids are labelled" in told.err
    assert bundle.manifest.labelled_count == 60
    assert (bundle.input.height, bundle.input.width) == (8, 8)


@pytest.mark.slow
def test_json_is_one_object_and_the_command_line_goes_before_the_preset(
    digit_files: Path, tmp_path: Path, tiny_preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--json", "--seed", "7", "--round", "2", "--cotrain.epochs", "1", "--task.epochs=1")
    assert run(arguments(digit_files, tmp_path / "bundles", tiny_preset, *more)) == 0
    told = json.loads(capsys.readouterr().out)
    bundle = open_bundle(Path(told["path"]))
    assert told["model_id"] == bundle.model_id
    assert told["pool"] == {"unlabelled": 140, "labelled": 60, "duplicates": 0, "skipped": {}}
    assert told["test_accuracy"] is None
    assert (told["method"], told["round"], bundle.manifest.seed) == ("aalu", 2, 7)
    configuration = bundle.manifest.configuration
    assert configuration["task"]["epochs"] == 1  # command line over preset
    assert configuration["task"]["width"] == 4  # preset over default
    assert configuration["cotrain"]["ranking_weight"] == 10  # default


@pytest.mark.slow
def test_it_remarks_on_test_classes_that_could_not_be_learned(
    digit_files: Path, digits, tmp_path: Path, tiny_preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from .conftest import png

    images, labels = digits
    encoded = [png(image) for image in images[:40]]
    names = [f"digit {label}" for label in labels[:40]]
    known = [i for i in range(40) if labels[i] < 3]
    write_parquet(
        tmp_path / "l.parquet",
        known,
        [encoded[i] for i in known],
        [names[i] for i in known],
        [f"digit {i}" for i in range(4)],
    )
    write_parquet(tmp_path / "t.parquet", list(range(40)), encoded, names)
    paths = ["--labelled", str(tmp_path / "l.parquet"), "--pool", str(digit_files / "pool.parquet")]
    more = ["--out", str(tmp_path / "b"), "--test", str(tmp_path / "t.parquet"), "--preset", tiny_preset]
    run([*paths, *more])
    told = capsys.readouterr().err
    unknown = sum(label > 3 for label in labels[:40])
    assert f"test: {unknown} images are of classes that the labelled set does not have" in told
    assert "test: no labelled image shows digit 3;" in told


def test_errors_have_reasons(digit_files: Path, tmp_path: Path, tiny_preset: str) -> None:
    unlabelled = arguments(digit_files, tmp_path, tiny_preset)
    unlabelled[1] = str(digit_files / "pool.parquet")
    with pytest.raises(InvalidDataError, match="no column 'label'"):
        run(unlabelled)
    nowhere = arguments(digit_files, tmp_path, tiny_preset, "--test", str(tmp_path / "nowhere.parquet"))
    with pytest.raises(NotFoundError, match=r"no pool at .*nowhere.parquet"):
        run(nowhere)
    with pytest.raises(ConfigurationError, match="no preset 'papr'"):
        run(arguments(digit_files, tmp_path, "papr"))
    with pytest.raises(ConfigurationError, match="even and at least 2; not 3"):
        run(arguments(digit_files, tmp_path, tiny_preset, "--cotrain.batch-size", "3"))
    assert not list(tmp_path.glob("*/scorer.onnx"))


def test_an_unknown_option_ends_with_status_2(digit_files: Path, tmp_path: Path, tiny_preset: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(arguments(digit_files, tmp_path, tiny_preset, "--task.epoch", "3"))
    assert caught.value.code == 2


def test_help_names_every_setting_and_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    for option in (
        "--task.width",
        "--cotrain.ranking-weight",
        "--vae.latent-size",
        "--image.resize",
        "--seed",
    ):
        assert option in told
    assert "paper, small" in told
    assert told.startswith("usage: topb train")
