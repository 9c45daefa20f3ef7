"""Experiments: what methods share, what a record holds, and that finished rounds are not repeated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from topb.image_input import ImageInput
from topb_scorer.durable import is_unpublished
from topb_trainer.config import TrainConfig, VaalConfig
from topb_trainer.data.sets import Dataset, with_row_ids
from topb_trainer.errors import ConfigurationError, InvalidDataError
from topb_trainer.experiment import run
from topb_trainer.experiment.chain import ids_sha256
from topb_trainer.experiment.config import ExperimentConfig, ProtocolConfig
from topb_trainer.experiment.records import Record, Settings, writing_records
from topb_trainer.experiment.run import initial_rows, run_experiment, settings_of, unlabelled_rows
from topb_trainer.methods import methods_named
from topb_trainer.models.resnet import Normalisation, ResNet18

from ..conftest import DIGITS

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


def test_a_method_picks_unlabelled_images_and_trains_on_them_in_the_next_round(
    compared: tuple[Path, list[Record]], data: Dataset
) -> None:
    _, records = compared
    start = initial_rows(200, 20, 0).tolist()
    for record in (record for record in records if record.round == 0):
        assert len(set(record.picked)) == 20
        assert not set(record.picked) & set(start)
        labelled = sorted(data.train.ids[row] for row in [*start, *record.picked])
        after = of(records, record.method, 1)
        assert after.labelled_sha256 == ids_sha256(labelled)
        assert (after.picked, after.model_id) == ([], None)
        assert record.model_id is not None
    picks = {record.method: tuple(record.picked) for record in records if record.round == 0}
    assert len(set(picks.values())) == len(COMPARED)


def test_a_copy_of_a_labelled_image_is_never_picked(data: Dataset) -> None:
    images = data.train.images[[0, 1, 0, 2, 1]]
    train = with_row_ids("train", images, data.train.labels[:5], DIGITS)
    assert unlabelled_rows(train, np.array([2])).tolist() == [1, 3, 4]
    assert unlabelled_rows(train, np.array([], np.int64)).tolist() == [0, 1, 2, 3, 4]


def test_a_record_holds_the_seconds_of_each_part(compared: tuple[Path, list[Record]]) -> None:
    _, records = compared
    parts = {"task", "test", "labelled_features", "selector", "export", "select"}
    assert of(records, "aalu", 0).seconds.keys() == parts
    assert of(records, "aalu", 1).seconds.keys() == {"task", "test"}


def test_a_record_holds_the_versions_of_the_libraries(compared: tuple[Path, list[Record]]) -> None:
    _, records = compared
    assert all(record.libraries["numpy"] == np.__version__ for record in records)
    assert {"topb", "torch", "onnxruntime", "python"} <= records[0].libraries.keys()


def test_nothing_but_settings_records_and_the_first_model_is_left(
    compared: tuple[Path, list[Record]],
) -> None:
    out, _ = compared
    assert {path.name for path in out.iterdir()} == {".lock", "experiment.json", "initial", "records"}


def test_bundles_of_a_round_lie_in_the_directory_of_the_experiment(
    data: Dataset, config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = []

    def failing(*_: object, parent: Path, **__: object) -> None:
        parents.append(parent)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "finish_round", failing)
    with pytest.raises(KeyboardInterrupt):
        ran(data, config, tmp_path, ["random"])
    assert [is_unpublished(path) for path in parents] == [True]
    assert parents[0].parent == tmp_path


def test_an_experiment_that_kept_copies_of_labelled_images_is_not_resumed(
    data: Dataset, config: ExperimentConfig, tmp_path: Path
) -> None:
    now = settings_of(config, data)
    before = Settings({name: value for name, value in now.values.items() if name != "procedure"})
    with writing_records(tmp_path, before):
        pass
    with (
        pytest.raises(ConfigurationError, match="procedure was None and is now 2"),
        writing_records(tmp_path, now),
    ):
        pass


def altered(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"labelled_sha256": ids_sha256(["another"])}, "was made from other labelled images"),
        ({"picked": [*range(20)]}, "has picks that"),
        ({"picked": [200] * 20}, "or are not in the training set"),
        ({"picked_sha256": ids_sha256(["another"])}, "do not match their digest"),
    ],
)
def test_a_record_that_does_not_continue_the_rounds_before_it_is_refused(
    values: dict[str, object],
    match: str,
    compared: tuple[Path, list[Record]],
    data: Dataset,
    config: ExperimentConfig,
    tmp_path: Path,
) -> None:
    shutil.copytree(compared[0], tmp_path / "altered")
    file = tmp_path / "altered" / "records" / "random" / "seed-0" / "round-0.json"
    altered(file, **values)
    with pytest.raises(InvalidDataError, match=match) as caught:
        ran(data, config, tmp_path / "altered", ["random"])
    assert caught.value.reason == "RECORD_MISPLACED"
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "match", "reason"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:1000]), "not hold a trained", "RECORD_UNREADABLE"),
        (lambda file: torch.save({"weights": {}}, file), "not hold a trained", "RECORD_UNREADABLE"),
        (
            lambda file: torch.save(torch.load(file) | {"place": {"labelled_sha256": ""}}, file),
            "the model of another experiment or seed",
            "RECORD_MISPLACED",
        ),
    ],
)
def test_a_damaged_or_foreign_first_model_is_an_error_that_names_its_file(
    damage: Callable[[Path], object],
    match: str,
    reason: str,
    compared: tuple[Path, list[Record]],
    data: Dataset,
    config: ExperimentConfig,
    tmp_path: Path,
) -> None:
    shutil.copytree(compared[0], tmp_path / "torn")
    file = tmp_path / "torn" / "initial" / "seed-0.pt"
    damage(file)
    with pytest.raises(InvalidDataError, match=match) as caught:
        ran(data, config, tmp_path / "torn", ["adv_vae"])
    assert caught.value.reason == reason
    assert str(file) in str(caught.value)


def test_entropy_and_core_set_pick_by_their_definitions(
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


def test_finished_rounds_are_not_run_again_and_seeds_can_be_added(
    compared: tuple[Path, list[Record]], data: Dataset, config: ExperimentConfig, tmp_path: Path
) -> None:
    out, records = compared
    shutil.copytree(out, tmp_path / "more")
    after = ran(data, config, tmp_path / "more", COMPARED[:1], seeds=(0, 1))
    assert [record for record in after if record.seed == 0] == records  # the times too
    added = [record for record in after if record.seed == 1]
    assert [(record.method, record.round) for record in added] == [("random", 0), ("random", 1)]
    assert added[0].labelled_sha256 != records[0].labelled_sha256


def test_the_gpu_index_and_the_data_path_do_not_change_the_settings(
    data: Dataset, config: ExperimentConfig
) -> None:
    def on(device: str) -> ExperimentConfig:
        return replace(config, data=device, train=replace(config.train, device=device))

    assert settings_of(on("cuda:0"), data) == settings_of(on("cuda:1"), data)
    assert settings_of(on("cuda:0"), data) != settings_of(on("cpu"), data)
    fewer = replace(data, test=data.limited(None, 50, 0).test)
    assert settings_of(config, fewer) != settings_of(config, data)
