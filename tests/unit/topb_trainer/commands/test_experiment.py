"""`topb experiment`: its output, its errors, and that it resumes after kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from support.command_line import topb
from support.images import encode
from topb_trainer.experiment.records import open_records

from ..conftest import DIGITS, write_parquet
from .test_train import TINY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, labels = digits
    folder = tmp_path_factory.mktemp("files")
    for name, part in (("train", slice(0, 100)), ("test", slice(100, 150))):
        encoded = [encode(image) for image in images[part]]
        ids = [f"{name}-{i}" for i in range(len(encoded))]
        write_parquet(folder / f"{name}.parquet", ids, encoded, labels[part].tolist(), DIGITS)
    indented = TINY.replace("[", "[train.").replace("= [train.", "= [")
    (folder / "tiny.toml").write_text(f"[protocol]\ninitial = 0.1\nstep = 0.1\nfinal = 0.4\n{indented}")
    return folder


def arguments(files: Path, out: Path, *more: str) -> list[str]:
    paths = ["--data", str(files / "train.parquet"), "--test", str(files / "test.parquet")]
    return [*paths, "--preset", str(files / "tiny.toml"), "--out", str(out), "--quiet", *more]


def test_each_record_is_printed_and_found_again_on_resume(files: Path, tmp_path: Path) -> None:
    more = ("--methods", "random", "--seeds", "1", "--protocol.final", "0.2")
    outcome = topb("experiment", *arguments(files, tmp_path, *more))
    assert outcome.exit_code == 0
    assert outcome.err.count("seed 0 · random · ") == 2
    assert "20% labelled (20) · accuracy" in outcome.err
    assert "topb report" in outcome.out
    assert topb("experiment", *arguments(files, tmp_path, *more)).err.count("already recorded") == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--methods", "bald"], ["no method 'bald'", "random, entropy"]),
        (["--train.seed", "3"], ["train.seed is 3", "--first-seed", "[SETTING_NOT_USED]"]),
        (["--train.seed", "0"], ["train.seed is 0", "--first-seed", "[SETTING_NOT_USED]"]),
        (["--train.cotrain.ranking"], ["train.cotrain.ranking is True", "--methods"]),
        (["--train.cotrain.no-ranking"], ["train.cotrain.ranking is False", "--methods"]),
        (["--train.vaal.kl-reduction", "mean"], ["train.vaal.kl_reduction is mean", "--methods"]),
        (["--out", "/dev/null"], ["--out /dev/null cannot be written to", "[OUT_UNUSABLE]"]),
        (["--seeds", "0"], ["seeds is 0", "[INVALID_CONFIGURATION]"]),
        (["--protocol.train-images", "5"], ["with 5 training images", "[INVALID_CONFIGURATION]"]),
        (["--protocol.train-images", "101"], ["cannot draw 101 images from 100", "[TOO_FEW_IMAGES]"]),
        (["--test", "/nowhere"], ["no pool at /nowhere"]),
        (
            ["--train.task.processes", "6"],
            ["10 labelled images are too few for 6 processes", "[TOO_FEW_IMAGES]"],
        ),
        (["--data", "None"], ["no data set is named", "[DATASET_MISSING]"]),
    ],
)
def test_errors_of_the_experiment_command_name_the_mistake(
    files: Path, tmp_path: Path, more: list[str], said: list[str]
) -> None:
    outcome = topb("experiment", *arguments(files, tmp_path / "new", *more))
    assert outcome.exit_code == 1
    assert all(words in outcome.err for words in said), outcome.err
    assert not (tmp_path / "new").exists()


@pytest.mark.kill
def test_an_experiment_killed_at_random_moments_ends_with_the_same_records(
    files: Path, tmp_path: Path, rng: random.Random
) -> None:
    more = ("--methods", "random", "aalu", "--seeds", "1", "--protocol.final", "0.2")
    assert topb("experiment", *arguments(files, tmp_path / "alone", *more)).exit_code == 0
    command = [sys.executable, "-m", "topb", "experiment", *arguments(files, tmp_path / "killed", *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    for _ in range(20):
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            process.stderr.readline()  # its first record, new or found: it is at work
            if kills < 2:
                time.sleep(rng.uniform(0, 3))
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
            process.communicate()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills > 0
    alone, killed = (
        [replace(record, seconds={}) for record in open_records(tmp_path / name).records()]
        for name in ("alone", "killed")
    )
    assert killed == alone
    assert len(killed) == 4
    left = [path for path in (tmp_path / "killed").rglob("*") if path.name.startswith(".unpublished")]
    assert left == []
