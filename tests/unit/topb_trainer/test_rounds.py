"""A round from images to its bundle, and its reproducibility."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from topb_scorer.scoring.session import ScoringSession
from topb_trainer.config import CotrainConfig, ExportConfig, TrainConfig
from topb_trainer.data.sets import RoundData
from topb_trainer.rounds import TrainedRound, train_round
from topb_trainer.runtime.context import RoundContext

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(
    digit_round: RoundData, tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> TrainedRound:
    return train_round(digit_round, RoundContext(tiny), tmp_path_factory.mktemp("bundles"))


def measured(trained: TrainedRound) -> list[tuple[str, float]]:
    return [(gate.name, gate.measured) for gate in trained.bundle.manifest.gates]


def test_a_seed_gives_the_same_model_id_and_gates(
    trained: TrainedRound, digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    torch.rand(3)
    again = train_round(digit_round, RoundContext(tiny), tmp_path)
    assert again.bundle.model_id == trained.bundle.model_id
    assert measured(again) == measured(trained)
    assert (again.train_accuracy, again.test_accuracy) == (trained.train_accuracy, trained.test_accuracy)
    assert again.bundle.labelled.read_bytes() == trained.bundle.labelled.read_bytes()


def test_another_round_starts_from_other_weights(
    trained: TrainedRound, digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    few = replace(tiny, export=ExportConfig(gate_images=5))
    next_round = train_round(replace(digit_round, test=None), RoundContext(few, index=1), tmp_path)
    manifest = next_round.bundle.manifest
    assert manifest.model_id != trained.bundle.model_id
    assert manifest.round == 1
    assert next_round.test_accuracy is None
    assert "over 5 real and 5 random images" in manifest.gates[0].meaning


def test_the_bundle_carries_the_features_that_the_graph_gives_the_labelled_images(
    trained: TrainedRound, digit_round: RoundData
) -> None:
    table = pq.read_table(trained.bundle.labelled)
    assert tuple(table["id"].to_pylist()) == digit_round.labelled.ids
    stored = np.array(table["feature"].to_pylist(), np.float32)
    scored = ScoringSession(trained.bundle.graph).score(digit_round.labelled.images)
    np.testing.assert_allclose(stored, scored["features"], atol=1e-4)


def test_an_ablation_exports_like_the_full_method(
    digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    cotrain = CotrainConfig(
        epochs=1, prediction=False, ranking=False, standardise_features=True, latent_for_assistant="sample"
    )
    manifest = train_round(
        digit_round, RoundContext(replace(tiny, cotrain=cotrain)), tmp_path
    ).bundle.manifest
    assert manifest.method == "adv_vae"
    assert all(gate.measured <= gate.limit for gate in manifest.gates)
