"""A round from images to its bundle, and its reproducibility."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from topb.v1 import bundle_pb2
from topb_scorer.scoring.model_session import ModelSession
from topb_trainer import rounds
from topb_trainer.config import CotrainConfig, ExportConfig, TrainConfig
from topb_trainer.data.sets import RoundData
from topb_trainer.errors import ConfigurationError, ExportGateError
from topb_trainer.export.weights import keep_weights
from topb_trainer.rounds import TrainedRound, export_round, train_round
from topb_trainer.runtime.context import RoundContext

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(
    digit_round: RoundData, tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> TrainedRound:
    return train_round(digit_round, RoundContext(tiny), tmp_path_factory.mktemp("bundles"))


def test_a_seed_gives_the_same_model_id_and_gates(
    trained: TrainedRound, digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    torch.rand(3)
    again = train_round(digit_round, RoundContext(tiny), tmp_path)
    assert again.bundle.model_id == trained.bundle.model_id
    assert list(again.bundle.manifest.gates) == list(trained.bundle.manifest.gates)
    assert (again.train_accuracy, again.test_accuracy) == (trained.train_accuracy, trained.test_accuracy)
    assert again.bundle.labelled.read_bytes() == trained.bundle.labelled.read_bytes()


def test_the_bundle_carries_the_features_that_the_graph_gives_the_labelled_images(
    trained: TrainedRound, digit_round: RoundData
) -> None:
    table = pq.read_table(trained.bundle.labelled)
    assert tuple(table["id"].to_pylist()) == digit_round.labelled.ids
    stored = np.array(table["feature"].to_pylist(), np.float32)
    scored = ModelSession(trained.bundle).score(digit_round.labelled.images)
    np.testing.assert_allclose(stored, scored["features"], atol=1e-4)


def test_rounded_features_are_float16_numbers_in_graph_and_labelled_set(
    digit_round: RoundData, tiny: TrainConfig, trained: TrainedRound, tmp_path: Path
) -> None:
    config = replace(tiny, export=ExportConfig(feature_type="float16"))
    bundle = train_round(digit_round, RoundContext(config), tmp_path).bundle
    assert bundle.manifest.feature_type == bundle_pb2.FEATURE_TYPE_FLOAT16
    assert bundle.encoder_id != trained.bundle.encoder_id
    exact, rounded = trained.bundle.labelled_features(), bundle.labelled_features()
    assert np.array_equal(rounded, exact.astype(np.float16).astype(np.float32))
    scored = ModelSession(bundle).score(digit_round.pool.images)["features"]
    assert np.array_equal(scored, scored.astype(np.float16))
    np.testing.assert_allclose(rounded, exact, rtol=2**-10)
    assert {gate.name: gate.measured for gate in bundle.manifest.gates}["not_float16"] == 0


def test_weights_that_a_gate_refused_are_exported_later_without_training(
    trained: TrainedRound, digit_round: RoundData, tiny: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    refusing = RoundContext(replace(tiny, export=ExportConfig(difference_limit=1e-30)))
    with pytest.raises(ExportGateError, match="--weights") as caught:
        train_round(digit_round, refusing, tmp_path)
    (weights,) = tmp_path.iterdir()
    assert caught.value.metadata["weights"] == str(weights)
    monkeypatch.setattr(rounds, "train_task", lambda *_: pytest.fail("nothing is trained"))
    again = export_round(weights, digit_round, RoundContext(tiny), tmp_path)
    assert again.bundle.model_id == trained.bundle.model_id
    assert again.bundle.labelled.read_bytes() == trained.bundle.labelled.read_bytes()
    assert (again.train_accuracy, again.test_accuracy) == (trained.train_accuracy, trained.test_accuracy)


def test_weights_are_refused_unless_they_belong_to_the_settings_and_labelled_images(
    digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    context = RoundContext(tiny)
    weights = keep_weights(torch.nn.Linear(2, 1), digit_round.labelled, context, tmp_path)
    renamed = replace(digit_round, labelled=replace(digit_round.labelled, classes=tuple("abcdefghij")))
    (tmp_path / "torn.pt").write_bytes(weights.read_bytes()[:100])
    for file, data, settings, reason in (
        (weights, renamed, context, "WEIGHTS_OF_ANOTHER_ROUND"),
        (weights, digit_round, RoundContext(tiny, index=1), "WEIGHTS_OF_ANOTHER_ROUND"),
        (weights, digit_round, RoundContext(replace(tiny, seed=1)), "WEIGHTS_OF_ANOTHER_ROUND"),
        (tmp_path / "torn.pt", digit_round, context, "WEIGHTS_UNREADABLE"),
        (tmp_path / "none.pt", digit_round, context, "WEIGHTS_UNREADABLE"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            export_round(file, data, settings, tmp_path)
        assert caught.value.reason == reason


def test_an_ablation_of_a_later_round_exports_like_the_full_method(
    digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    switches = {"prediction": False, "ranking": False}
    cotrain = CotrainConfig(epochs=1, standardise_features=True, latent_for_assistant="sample", **switches)
    config = replace(tiny, cotrain=cotrain, export=ExportConfig(gate_images=5))
    trained = train_round(replace(digit_round, test=None), RoundContext(config, index=1), tmp_path)
    manifest = trained.bundle.manifest
    assert (manifest.method, manifest.round, trained.test_accuracy) == ("adv_vae", 1, None)
    assert not manifest.encoder_frozen
    assert all(gate.measured <= gate.limit for gate in manifest.gates)
    assert "over 5 images of the pool and 12 extreme ones" in manifest.gates[0].meaning
