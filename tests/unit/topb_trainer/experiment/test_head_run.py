"""Experiments in which only heads are trained: one encoder, whose features are computed once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from topb.image_input import ImageInput
from topb_trainer.config import ImageConfig, TaskConfig, TrainConfig
from topb_trainer.data.sets import Dataset, RoundData, with_row_ids
from topb_trainer.encoders.opening import completed
from topb_trainer.errors import ConfigurationError
from topb_trainer.experiment import run
from topb_trainer.experiment.config import ExperimentConfig, ProtocolConfig
from topb_trainer.experiment.records import writing_records
from topb_trainer.experiment.run import run_experiment, select_in_memory, settings_of
from topb_trainer.export.frozen import FrozenEncoder, encoded_round
from topb_trainer.methods import methods_named
from topb_trainer.rounds import train_round
from topb_trainer.runtime.context import RoundContext

from ..conftest import DIGITS

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _factories() -> Iterator[None]:
    folder = str(Path(__file__).parents[1] / "encoders")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    sys.modules.pop("factories", None)


@pytest.fixture(scope="module")
def config(tiny: TrainConfig) -> TrainConfig:
    task = TaskConfig(encoder="factories:Small", epochs=3, batch_size=32)
    return completed(replace(tiny, task=task, image=ImageConfig(8)))


def test_features_are_computed_once_for_all_methods_seeds_and_rounds(
    digits, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = digits
    data = Dataset(
        "digits",
        with_row_ids("train", images[:200], labels[:200], DIGITS),
        with_row_ids("test", images[200:260], labels[200:260], DIGITS),
        ImageInput(8, 8),
    )
    encoded: list[int] = []
    features = FrozenEncoder.features

    def counted(self: FrozenEncoder, images: np.ndarray, *more: object) -> np.ndarray:
        encoded.append(len(images))
        return features(self, images, *more)

    monkeypatch.setattr(FrozenEncoder, "features", counted)
    experiment = ExperimentConfig(None, ProtocolConfig(0.1, 0.1, 0.2), config)
    with writing_records(tmp_path / "out", settings_of(experiment, data)) as store:
        for _ in range(2):  # The second run finds everything recorded.
            run_experiment(data, experiment, methods_named(["random", "core_set", "aalu"]), (0, 1), store)
            assert encoded == [200, 60]
        records = store.records()
    assert len(records) == 2 * 3 * 2
    for record in records:
        assert (len(set(record.picked)), record.labelled) == ((20, 20) if record.round == 0 else (0, 40))
    assert len({tuple(record.picked) for record in records if record.round == 0}) == 6


@pytest.mark.parametrize("strategy", ["aalu", "entropy", "core_set", "badge", "typiclust"])
def test_the_same_images_are_picked_from_features_as_from_images(
    strategy: str, digit_round: RoundData, config: TrainConfig, tmp_path: Path
) -> None:
    context = RoundContext(config)
    bundle = train_round(digit_round, context, tmp_path).bundle
    of_features = encoded_round(digit_round, context)[0].pool
    picked = [
        select_in_memory(bundle, pool, 25, strategy, seed=3, device="cpu")
        for pool in (digit_round.pool, of_features)
    ]
    assert picked[0] == picked[1]
    assert len(set(picked[0])) == 25


def test_vaal_is_refused_before_anything_is_trained(
    digits, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = digits
    train = with_row_ids("train", images[:50], labels[:50], DIGITS)
    data = Dataset("digits", train, train, ImageInput(8, 8))
    experiment = ExperimentConfig(None, ProtocolConfig(0.1, 0.1, 0.2), config)
    monkeypatch.setattr(run, "encoded_dataset", lambda *_: pytest.fail("nothing is computed"))
    with (
        writing_records(tmp_path / "out", settings_of(experiment, data)) as store,
        pytest.raises(ConfigurationError) as caught,
    ):
        run_experiment(data, experiment, methods_named(["aalu", "vaal"]), (0,), store)
    assert caught.value.reason == "METHOD_NEEDS_IMAGES"
