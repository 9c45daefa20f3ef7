"""Rounds in which only a head is trained, on the features of an encoder that stays as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from topb_scorer.scoring.model_session import ModelSession
from topb_scorer.scoring.session import GraphSession
from topb_trainer.config import ExportConfig, ImageConfig, TaskConfig, TrainConfig
from topb_trainer.data.sets import RoundData
from topb_trainer.encoders.opening import completed
from topb_trainer.errors import ConfigurationError, ExportGateError, InvalidDataError
from topb_trainer.export import frozen
from topb_trainer.rounds import TrainedRound, export_round, finish_round, train_round
from topb_trainer.runtime.context import RoundContext
from topb_trainer.task import task_outputs, train_task

pytestmark = pytest.mark.slow

SMALL = "factories:Small"


@pytest.fixture(autouse=True, scope="module")
def _factories() -> Iterator[None]:
    folder = str(Path(__file__).parent / "encoders")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    sys.modules.pop("factories", None)


def head(tiny: TrainConfig, encoder: str = SMALL, **task: object) -> TrainConfig:
    settings = {"encoder": encoder, "epochs": 3, "batch_size": 32, **task}
    return completed(replace(tiny, task=TaskConfig(**settings), image=ImageConfig(8)))


def of_bundle(tiny: TrainConfig, path: Path, **task: object) -> TrainConfig:
    return completed(replace(tiny, task=TaskConfig(encoder=str(path), epochs=3, **task)))


@pytest.fixture(scope="module")
def first(
    digit_round: RoundData, tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> TrainedRound:
    return train_round(digit_round, RoundContext(head(tiny)), tmp_path_factory.mktemp("bundles"))


def test_labelled_features_and_scores_are_those_of_the_exported_graphs(
    first: TrainedRound, digit_round: RoundData
) -> None:
    bundle = first.bundle
    assert bundle.manifest.encoder_frozen
    scored = ModelSession(bundle).score(digit_round.labelled.images)
    assert np.array_equal(bundle.labelled_features(), scored["features"])
    again = GraphSession(bundle.head, batch_size=256).apply({"features": scored["features"]})
    assert set(again) == {"score", "probabilities"}
    assert all(np.array_equal(again[name], scored[name]) for name in again)
    assert np.mean(scored["probabilities"].argmax(1) == digit_round.labelled.labels) == first.train_accuracy
    assert bundle.manifest.encoder_frozen
    names = [gate.name for gate in bundle.manifest.gates]
    assert len(set(names)) == len(names)
    assert {"features_difference", "batch_dependence", "head_score_difference"} <= set(names)
    recorded = bundle.manifest.configuration["task"]
    assert (recorded["train"], recorded["learning_rate"], recorded["schedule"]) == ("head", 1e-3, "cosine")


def test_a_seed_gives_the_same_model_id(
    first: TrainedRound, digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    torch.rand(3)
    assert (
        train_round(digit_round, RoundContext(head(tiny)), tmp_path).bundle.model_id == first.bundle.model_id
    )


def test_the_encoder_stays_the_same_byte_for_byte_while_the_labelled_set_grows(
    first: TrainedRound, digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    pool = digit_round.pool
    grown = replace(
        digit_round,
        labelled=replace(
            digit_round.labelled,
            ids=digit_round.labelled.ids + pool.ids[:20],
            images=np.concatenate([digit_round.labelled.images, pool.images[:20]]),
            labels=np.concatenate([digit_round.labelled.labels, np.arange(20) % 10]),
            digests=(),
        ),
        pool=replace(pool, ids=pool.ids[20:], images=pool.images[20:]),
    )
    second = train_round(grown, RoundContext(head(tiny), index=1), tmp_path).bundle
    config = of_bundle(tiny, second.path)
    third = train_round(grown, RoundContext(config, index=2), tmp_path).bundle
    file = tmp_path / "encoder.onnx"
    file.write_bytes(third.encoder.read_bytes())
    fourth = train_round(grown, RoundContext(of_bundle(tiny, file), index=2), tmp_path).bundle
    assert len({first.bundle.model_id, second.model_id, third.model_id}) == 3
    assert fourth.model_id == third.model_id  # The path of the encoder makes no other model.
    for bundle in (second, third, fourth):
        assert bundle.encoder.read_bytes() == first.bundle.encoder.read_bytes()
        assert bundle.encoder_id == first.bundle.encoder_id


def test_with_hidden_layers_f_is_the_last_of_them(
    digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    context = RoundContext(head(tiny, head=(16, 9)))
    data, encoder = frozen.encoded_round(digit_round, context)
    model = train_task(data.labelled, context)
    outputs = task_outputs(model, data.labelled.images, context)
    assert outputs.features.shape == (60, 9)
    assert torch.equal(model.classifier(outputs.features), outputs.logits)
    trained = finish_round(
        model, data, "assistant", context, test_accuracy=None, parent=tmp_path, encoder=encoder
    )
    assert trained.bundle.output_shape("features") == (8,)


def test_a_head_learns_what_a_fixed_encoder_shows(digit_round: RoundData, tiny: TrainConfig) -> None:
    """A linear head on the raw pixels, which separates the labelled digits."""
    context = RoundContext(head(tiny, epochs=200))
    flat = digit_round.labelled.images.reshape(60, -1).astype(np.float32)
    model = train_task(replace(digit_round.labelled, images=flat), context)
    logits = task_outputs(model, flat, context).logits
    assert (logits.argmax(1).numpy() == digit_round.labelled.labels).mean() > 0.95


def test_rounded_features_are_those_on_which_the_head_is_trained(
    digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    config = replace(head(tiny), export=ExportConfig(feature_type="float16"))
    bundle = train_round(digit_round, RoundContext(config), tmp_path).bundle
    features = bundle.labelled_features()
    assert np.array_equal(features, features.astype(np.float16).astype(np.float32))
    again = train_round(digit_round, RoundContext(of_bundle(tiny, bundle.path)), tmp_path).bundle
    assert again.manifest.feature_type == bundle.manifest.feature_type
    assert again.encoder_id == bundle.encoder_id


def test_an_encoder_that_mixes_the_images_of_a_batch_does_not_pass(
    digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(
        ExportGateError, match=r"batch norm in training mode .* batch_dependence is"
    ) as caught:
        train_round(digit_round, RoundContext(head(tiny, "factories:Mixing")), tmp_path)
    assert caught.value.reason == "EXPORT_GATE"


def test_features_that_are_not_finite_are_refused(
    digit_round: RoundData, tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = RoundContext(head(tiny))
    encoder = frozen.freeze(context.config, digit_round.target, lambda: digit_round.pool.images)
    exact = encoder.features(digit_round.pool.images, "pool", context)
    exact[[3, 5]] = np.nan
    monkeypatch.setattr(frozen.FrozenEncoder, "features", lambda *_: exact)
    pool = encoder.of_pool(digit_round.pool, context)
    assert pool.skipped == {"SCORE_NOT_FINITE": 2}
    assert len(pool.ids) == len(pool.images) == 138
    assert digit_round.pool.ids[3] not in pool.ids
    named = f"for 2 of 140 labelled images, such as {digit_round.labelled.ids[3]}"
    with pytest.raises(InvalidDataError, match=named) as caught:
        encoder.of_labelled(digit_round.labelled, "labelled", context)
    assert caught.value.reason == "FEATURES_NOT_FINITE"


def test_an_encoder_that_gives_nan_does_not_pass(digit_round: RoundData, tiny: TrainConfig) -> None:
    with pytest.raises(ExportGateError, match="not_finite is"):
        frozen.encoded_round(digit_round, RoundContext(head(tiny, "factories:NotFinite")))


def test_vaal_is_refused_because_it_needs_images(
    digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    context = RoundContext(head(tiny))
    data, encoder = frozen.encoded_round(digit_round, context)
    task = train_task(data.labelled, context)
    with pytest.raises(ConfigurationError, match="VAAL trains an auto-encoder on images") as caught:
        finish_round(task, data, "vaal", context, test_accuracy=None, parent=tmp_path, encoder=encoder)
    assert caught.value.reason == "METHOD_NEEDS_IMAGES"


def test_weights_of_a_head_that_a_gate_refused_are_exported_later(
    first: TrainedRound, digit_round: RoundData, tiny: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    def refused(*_: object) -> list[object]:
        raise ExportGateError("no", reason="EXPORT_GATE")

    with monkeypatch.context() as patched:
        patched.setattr("topb_trainer.export.gates.measure_head", refused)
        with pytest.raises(ExportGateError) as caught:
            train_round(digit_round, RoundContext(head(tiny)), tmp_path)
    weights = Path(caught.value.metadata["weights"])
    again = export_round(weights, digit_round, RoundContext(head(tiny)), tmp_path)
    assert again.bundle.model_id == first.bundle.model_id


def test_all_weights_of_a_factorys_module_are_trained(
    digit_round: RoundData, tiny: TrainConfig, tmp_path: Path
) -> None:
    context = RoundContext(head(tiny, train="all"))
    assert (context.task.learning_rate, context.task.schedule) == (1e-4, "cosine")
    trained = train_round(digit_round, context, tmp_path).bundle
    fixed = frozen.freeze(head(tiny), digit_round.target, lambda: digit_round.pool.images)
    assert trained.encoder.read_bytes() != fixed.graph
    assert not trained.manifest.encoder_frozen
    assert trained.output_shape("features") == (8,)


def test_statistics_of_the_labelled_images_would_change_the_encoder(
    digit_round: RoundData, tiny: TrainConfig
) -> None:
    image = ImageConfig(8, normalisation="labelled")
    config = replace(head(tiny), image=image)
    with pytest.raises(ConfigurationError, match="the encoder would change from round to round"):
        frozen.freeze(config, digit_round.target, lambda: digit_round.pool.images)
