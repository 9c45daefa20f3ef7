"""The protocol: what methods share, what a record holds, and that a stopped experiment carries on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.command_line import topb
from topb.image_input import ImageInput
from topb_trainer.config import TaskConfig, TrainConfig, VaalConfig
from topb_trainer.data.sets import Dataset, with_row_ids
from topb_trainer.errors import ConfigurationError, InvalidDataError
from topb_trainer.experiment import run as experiment
from topb_trainer.experiment.config import ExperimentConfig, ProtocolConfig
from topb_trainer.experiment.records import Record, open_records, writing_records
from topb_trainer.experiment.run import initial_rows, run_experiment, settings_of
from topb_trainer.methods import methods_named
from topb_trainer.models.resnet import Normalisation, ResNet18

from ..commands.test_train import TINY
from ..conftest import DIGITS, png, write_parquet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(digits) -> Dataset:
    images, labels = digits
    return Dataset(
        "digits",
        with_row_ids("train", images[:200], labels[:200], DIGITS),
        with_row_ids("test", images[200:300], labels[200:300], DIGITS),
        ImageInput(8, 8),
    )


@pytest.fixture(scope="module")
def config(tiny: TrainConfig) -> ExperimentConfig:
    vaal = VaalConfig(channels=(4, 4, 8, 8), latent_size=4, hidden=(8, 8), epochs=1, batch_size=32)
    return ExperimentConfig(None, ProtocolConfig(0.1, 0.1, 0.2), replace(tiny, vaal=vaal))


def ran(
    data: Dataset, config: ExperimentConfig, out: Path, methods: Sequence[str], seeds: Sequence[int] = (0,)
) -> list[Record]:
    with writing_records(out, settings_of(config, data)) as store:
        run_experiment(data, config, methods_named(methods), seeds, store)
        return store.records()


def without_times(records: Sequence[Record]) -> list[Record]:
    return [replace(record, seconds={}) for record in records]


# One of each kind: the others differ in switches alone, and an export takes seconds.
COMPARED = ("random", "entropy", "core_set", "vaal", "loss_learn", "aalu")


@pytest.fixture(scope="module")
def compared(
    data: Dataset, config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Record]]:
    out = tmp_path_factory.mktemp("results") / "every"
    return out, ran(data, config, out, COMPARED)


def of(records: Sequence[Record], method: str, round_index: int, seed: int = 0) -> Record:
    (found,) = (r for r in records if (r.method, r.round, r.seed) == (method, round_index, seed))
    return found


def test_every_method_starts_from_the_same_labels_and_the_same_model(
    compared: tuple[Path, list[Record]],
) -> None:
    out, records = compared
    assert {record.method for record in records} == set(COMPARED)
    first = [record for record in records if record.round == 0]
    assert len({(record.labelled_sha256, record.accuracy, record.seconds["task"]) for record in first}) == 1
    assert [file.name for file in (out / "initial").iterdir()] == ["seed-0.pt"]
    assert [record.labelled for record in records if record.round == 1] == [40] * len(COMPARED)


def test_a_method_picks_what_is_not_labelled_and_trains_on_it_next(
    compared: tuple[Path, list[Record]], data: Dataset
) -> None:
    _, records = compared
    start = initial_rows(200, 20, 0).tolist()
    for record in (record for record in records if record.round == 0):
        assert len(set(record.picked)) == 20
        assert not set(record.picked) & set(start)
        labelled = sorted(data.train.ids[row] for row in [*start, *record.picked])
        after = of(records, record.method, 1)
        assert after.labelled_sha256 == experiment.ids_sha256(labelled)
        assert (after.picked, after.model_id) == ([], None)
        assert record.model_id is not None
    picks = {record.method: tuple(record.picked) for record in records if record.round == 0}
    assert len(set(picks.values())) == len(COMPARED)


def test_a_record_tells_the_time_of_each_part(compared: tuple[Path, list[Record]]) -> None:
    _, records = compared
    parts = {"task", "test", "labelled_features", "selector", "export", "select"}
    assert of(records, "aalu", 0).seconds.keys() == parts
    assert of(records, "aalu", 1).seconds.keys() == {"task", "test"}


def test_entropy_and_core_set_pick_what_their_definitions_say(
    compared: tuple[Path, list[Record]], data: Dataset, config: ExperimentConfig
) -> None:
    out, records = compared
    kept = torch.load(out / "initial" / "seed-0.pt", weights_only=True)
    model = ResNet18(Normalisation((0, 0, 0), (1, 1, 1)), 10, config.train.task.width, "cifar")
    model.load_state_dict(kept["weights"])
    with torch.no_grad():
        features, logits = model.eval()(torch.from_numpy(data.train.images))
    start = initial_rows(200, 20, 0)
    rest = np.setdiff1d(np.arange(200), start)
    p = logits.double().softmax(1)
    entropy = -(p * p.log()).sum(1)[rest]
    picked = of(records, "entropy", 0).picked
    chosen = entropy[np.searchsorted(rest, picked)]
    assert chosen.min() >= entropy.sort(descending=True).values[19] - 1e-4
    distances = torch.cdist(features[rest], features[start]).min(1).values
    assert of(records, "core_set", 0).picked[0] == rest[distances.argmax()]


def test_what_is_finished_is_not_run_again(
    compared: tuple[Path, list[Record]],
    data: Dataset,
    config: ExperimentConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, records = compared
    monkeypatch.setattr(experiment, "train_task", pytest.fail)
    monkeypatch.setattr(experiment, "finish_round", pytest.fail)
    assert ran(data, config, out, COMPARED) == records


def test_more_methods_and_seeds_can_be_added(data: Dataset, config: ExperimentConfig, tmp_path: Path) -> None:
    before = ran(data, config, tmp_path, ["random"])
    after = ran(data, config, tmp_path, ["entropy"], seeds=(0, 1))
    assert [record for record in after if record.method == "random"] == before
    assert {(r.method, r.seed) for r in after} == {("random", 0), ("entropy", 0), ("entropy", 1)}
    assert of(after, "entropy", 0, 0).labelled_sha256 == before[0].labelled_sha256
    assert of(after, "entropy", 0, 1).labelled_sha256 != before[0].labelled_sha256


def test_other_settings_are_refused_and_named(
    compared: tuple[Path, list[Record]], data: Dataset, config: ExperimentConfig
) -> None:
    out, _ = compared
    train = replace(config.train, task=replace(config.train.task, epochs=9))
    with pytest.raises(ConfigurationError, match=r"train\.task\.epochs was 2, is 9") as caught:
        ran(data, replace(config, train=train), out, ["random"])
    assert caught.value.reason == "EXPERIMENT_SETTINGS"
    fewer = replace(data, test=data.limited(None, 50, 0).test)
    with pytest.raises(ConfigurationError, match=r"data\.test_images was 100, is 50"):
        ran(fewer, config, out, ["random"])


def test_two_experiments_do_not_run_in_one_directory(
    data: Dataset, config: ExperimentConfig, tmp_path: Path
) -> None:
    settings = settings_of(config, data)
    with (
        writing_records(tmp_path, settings),
        pytest.raises(ConfigurationError, match="another experiment is running"),
        writing_records(tmp_path, settings),
    ):
        pass


def test_a_torn_or_foreign_record_is_an_error(
    data: Dataset, config: ExperimentConfig, tmp_path: Path
) -> None:
    with writing_records(tmp_path, settings_of(config, data)) as store:
        record = Record("random", 0, 0, 2, 0.1, 0.5, "", [], "", None, store.settings.sha256, {})
        store.publish(record)
        assert store.read("random", 0, 0) == record
        assert store.read("random", 0, 1) is None
        (file,) = tmp_path.glob("records/*/*/*.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"settings_sha256": "another"}))
        with pytest.raises(InvalidDataError, match="a record of other settings"):
            store.read("random", 0, 0)
        file.write_text("{")
        with pytest.raises(InvalidDataError, match="is not a record"):
            store.records()
    with pytest.raises(InvalidDataError, match="holds no experiment"):
        open_records(tmp_path / "nowhere")


def test_the_protocol_is_the_papers_by_default() -> None:
    protocol = ProtocolConfig()
    assert protocol.shares == (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    assert protocol.labelled_counts(50_000) == (5000, 7500, 10_000, 12_500, 15_000, 17_500, 20_000)
    assert protocol.labelled_counts(73_257)[-1] == 29_303
    with pytest.raises(ConfigurationError, match="do not lead from"):
        ProtocolConfig(0.1, 0.04, 0.4)
    with pytest.raises(ConfigurationError, match="0 < initial"):
        ProtocolConfig(0.5, 0.1, 0.4)
    with pytest.raises(ConfigurationError, match="at least 2, and more each round"):
        ProtocolConfig().labelled_counts(10)


def test_which_gpu_and_which_path_do_not_change_the_settings(data: Dataset, config: ExperimentConfig) -> None:
    def on(device: str) -> ExperimentConfig:
        return replace(config, data=device, train=replace(config.train, device=device))

    assert settings_of(on("cuda:0"), data) == settings_of(on("cuda:1"), data)
    assert settings_of(on("cuda:0"), data) != settings_of(on("cpu"), data)
    assert settings_of(config, data).sha256 == settings_of(config, data).sha256


def test_mixed_precision_trains_t_too(data: Dataset, config: ExperimentConfig, tmp_path: Path) -> None:
    task = TaskConfig(width=4, epochs=1, mixed_precision="on")
    protocol = ProtocolConfig(0.1, 0.1, 0.1)
    (record,) = ran(
        data, ExperimentConfig(None, protocol, replace(config.train, task=task)), tmp_path, ["random"]
    )
    assert 0 <= record.accuracy <= 1


# The command


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, labels = digits
    folder = tmp_path_factory.mktemp("files")
    for name, part in (("train", slice(0, 100)), ("test", slice(100, 150))):
        encoded = [png(image) for image in images[part]]
        ids = [f"{name}-{i}" for i in range(len(encoded))]
        write_parquet(folder / f"{name}.parquet", ids, encoded, labels[part].tolist(), DIGITS)
    indented = TINY.replace("[", "[train.").replace("= [train.", "= [")
    (folder / "tiny.toml").write_text(f"[protocol]\ninitial = 0.1\nstep = 0.1\nfinal = 0.4\n{indented}")
    return folder


def arguments(files: Path, out: Path, *more: str) -> list[str]:
    paths = ["--data", str(files / "train.parquet"), "--test", str(files / "test.parquet")]
    return [*paths, "--preset", str(files / "tiny.toml"), "--out", str(out), "--quiet", *more]


def test_the_command_says_each_record_and_finds_it_again(files: Path, tmp_path: Path) -> None:
    more = ("--methods", "random", "--seeds", "1", "--protocol.final", "0.2")
    told = topb("experiment", *arguments(files, tmp_path, *more))
    assert told.exit_code == 0
    assert told.err.count("seed 0 · random · ") == 2
    assert "20% labelled (20) · accuracy" in told.err
    assert "topb report" in told.out
    assert topb("experiment", *arguments(files, tmp_path, *more)).err.count("was there") == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--methods", "bald"], ["no method 'bald'", "random, entropy"]),
        (["--seeds", "0"], ["seeds is at least 1", "[INVALID_CONFIGURATION]"]),
        (["--data", "None"], ["no data set is named", "[DATASET_MISSING]"]),
    ],
)
def test_the_command_says_what_was_wrong(
    files: Path, tmp_path: Path, more: list[str], said: list[str]
) -> None:
    outcome = topb("experiment", *arguments(files, tmp_path, *more))
    assert outcome.exit_code == 1
    assert all(words in outcome.err for words in said), outcome.err


@pytest.mark.kill
def test_killed_at_random_moments_and_run_again_it_ends_with_the_same_records(
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
    alone, killed = (open_records(tmp_path / name).records() for name in ("alone", "killed"))
    assert without_times(killed) == without_times(alone)
    assert len(killed) == 4
    left = [path for path in (tmp_path / "killed").rglob("*") if path.name.startswith(".unpublished")]
    assert left == []
