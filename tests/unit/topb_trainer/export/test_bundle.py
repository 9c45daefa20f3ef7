"""The bundle: its contents, its reproducibility, and that a bundle that fails a gate is never published."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from google.protobuf import json_format

from topb.image_input import ImageInput, ResizeRule
from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle
from topb_scorer.errors import BundleError
from topb_scorer.pools import content_digest
from topb_trainer.config import TaskConfig, TrainConfig
from topb_trainer.data.sets import LabelledSet, RoundData, UnlabelledSet
from topb_trainer.errors import ExportGateError
from topb_trainer.export import bundle as export
from topb_trainer.export.bundle import export_bundle
from topb_trainer.export.graph import Graphs, onnx_graphs
from topb_trainer.models.assistant import Assistant
from topb_trainer.models.resnet import Normalisation, ResNet18
from topb_trainer.models.scoring import AssistantModel, FeatureScaling, TaskModel
from topb_trainer.models.vae import Vae
from topb_trainer.runtime.context import RoundContext

pytestmark = pytest.mark.slow

TARGET = ImageInput(12, 16, ResizeRule.COVER_AND_CENTER_CROP)
CLASSES = ("cat", "dog", "eel")
CONFIG = TrainConfig(seed=2**63 + 1)


@pytest.fixture(scope="module")
def model() -> AssistantModel:
    """Return a model that is untrained except for its batch norms, where exporters go wrong."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task_model = ResNet18(Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), 3, 4, "cifar")
        images = torch.randint(0, 256, (64, 12, 16, 3), dtype=torch.uint8)
        for _ in range(3):
            task_model(images)
        features = task_model.eval()(images)[0].detach()
        scoring = AssistantModel(
            task_model, FeatureScaling(features), Vae(32, 4, (16, 8)), Assistant(4, 3, (8, 8))
        )
    return scoring.eval().requires_grad_(False)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 16, 3), np.uint8)


def exported(
    model: AssistantModel,
    parent: Path,
    *,
    pool_images: int = 40,
    test_accuracy: float | None = 0.625,
    brightness: float = 1,
    labelled_ids: tuple[str, ...] = ("a", "b"),
    classes: tuple[str, ...] = CLASSES,
    config: TrainConfig = CONFIG,
) -> Bundle:
    pool = (images(pool_images) * brightness).astype(np.uint8)
    data = RoundData(
        LabelledSet(labelled_ids, images(2), np.array([0, 1]), classes),
        UnlabelledSet(tuple(map(str, range(pool_images))), pool),
        None,
        TARGET,
    )
    return export_bundle(
        model,
        data,
        np.arange(64, dtype=np.float32).reshape(2, 32),
        RoundContext(config, index=3),
        method="aalu",
        test_accuracy=test_accuracy,
        parent=parent,
    )


@pytest.fixture(scope="module")
def graphs(model: AssistantModel) -> Graphs:
    """Return the graphs of the model. Exporting takes seconds, so most tests share them."""
    return onnx_graphs(model, 12, 16)


@pytest.fixture
def same_graphs(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "onnx_graphs", lambda *_: graphs)


@pytest.fixture(scope="module")
def bundle(model: AssistantModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(model, tmp_path_factory.mktemp("bundles"))


def test_a_bundle_is_a_directory_named_after_its_model_id_with_four_files(bundle: Bundle) -> None:
    assert bundle.path.name == bundle.model_id
    files = {file.name for file in bundle.path.iterdir()}
    assert files == {"encoder.onnx", "head.onnx", "labelled.parquet", "manifest.json"}
    assert list(bundle.path.parent.iterdir()) == [bundle.path]


def test_the_graphs_take_any_number_of_rows_and_give_float32_by_name(bundle: Bundle) -> None:
    encoder, head = sessions(bundle)
    (taken,) = encoder.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [12, 16, 3])
    float32 = "tensor(float)"
    shapes = [
        {value.name: (value.type, value.shape[1:]) for value in values}
        for values in (encoder.get_outputs(), head.get_inputs(), head.get_outputs())
    ]
    features = {"features": (float32, [32])}
    assert shapes == [features, features, {"score": (float32, []), "probabilities": (float32, [3])}]
    assert all(isinstance(value.shape[0], str) for value in (taken, *head.get_inputs()))
    for count in (1, 2, 7):
        (features,) = encoder.run(None, {"images": images(count)})
        score, probabilities = head.run(["score", "probabilities"], {"features": features})
        assert (score.shape, probabilities.shape, features.shape) == ((count,), (count, 3), (count, 32))
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def sessions(bundle: Bundle) -> list[onnxruntime.InferenceSession]:
    return [
        onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        for graph in (bundle.encoder, bundle.head)
    ]


def weights_of(graph: Path) -> set[str]:
    return {tensor.name for tensor in onnx.load(graph, load_external_data=False).graph.initializer}


def test_each_graph_holds_its_own_weights_and_neither_decoder_nor_log_variance(bundle: Bundle) -> None:
    encoder, head = weights_of(bundle.encoder), weights_of(bundle.head)
    assert not any("decoder" in name or "log_variance" in name for name in encoder | head)
    assert any("stages" in name for name in encoder)
    assert not any("stages" in name or "stem" in name for name in head)
    assert not any("classifier" in name or "assistant" in name or "vae" in name for name in encoder)
    assert any("classifier" in name for name in head)
    for path in (bundle.encoder, bundle.head):
        graph = onnx.load(path, load_external_data=False).graph
        assert not any(tensor.external_data for tensor in graph.initializer)
        onnx.checker.check_model(str(path))


def test_the_graphs_hold_no_information_about_the_machine(bundle: Bundle) -> None:
    text = str(onnx.load(bundle.encoder)) + str(onnx.load(bundle.head))
    repository = str(Path(__file__).parents[4])
    assert not any(
        note in text for note in ("metadata_props", "doc_string", ".py", "site-packages", repository)
    )


def test_the_same_model_exports_to_the_same_bytes(graphs: Graphs, bundle: Bundle) -> None:
    assert (bundle.encoder.read_bytes(), bundle.head.read_bytes()) == (graphs.encoder, graphs.head)


def test_the_encoder_does_not_depend_on_what_the_head_learned(model: AssistantModel, graphs: Graphs) -> None:
    other = copy.deepcopy(model)
    torch.nn.init.normal_(other.assistant.layers[0].weight)
    torch.nn.init.normal_(other.task_model.classifier.weight)
    for changed in (other, TaskModel(model.task_model).eval()):
        again = onnx_graphs(changed, 12, 16)
        assert again.encoder == graphs.encoder
        assert again.head != graphs.head


def test_the_manifest_describes_model_data_and_gates(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.schema_version, manifest.method, manifest.round) == (2, "aalu", 3)
    assert (manifest.input.height, manifest.input.width) == (12, 16)
    assert bundle.input == TARGET
    assert tuple(manifest.classes) == CLASSES
    outputs = {output.name: list(output.shape) for output in manifest.outputs}
    assert outputs == {"score": [], "probabilities": [3], "features": [32]}
    assert bundle.encoder_outputs == {"features": (32,)}
    assert manifest.feature_type == bundle_pb2.FEATURE_TYPE_FLOAT32
    assert bundle.strategies == {"aalu", "entropy", "least_confidence", "margin", "random"}
    assert (manifest.labelled_count, manifest.test_accuracy, manifest.seed) == (2, 0.625, 2**63 + 1)
    assert manifest.configuration["cotrain"]["ranking_weight"] == 10
    assert list(manifest.configuration["vae"]["hidden"]) == [512, 256]
    assert {"torch", "onnx", "onnxruntime", "python", "topb"} <= set(manifest.library_versions)
    assert [file.name for file in manifest.files] == ["encoder.onnx", "head.onnx", "labelled.parquet"]
    assert manifest.create_time.seconds > 1_700_000_000
    differences = [f"{name}_difference" for name in ("score", "probabilities", "features", "top_b")]
    names = ["not_finite", *differences, "head_difference", "batch_dependence"]
    assert sorted(gate.name for gate in manifest.gates) == sorted(names)
    assert all(gate.measured <= gate.limit <= 1e-4 for gate in manifest.gates)
    assert all("40 images of the pool and 64 extreme ones" in gate.meaning for gate in manifest.gates[:-2])


def test_the_manifest_is_proto3_json_with_every_field(bundle: Bundle) -> None:
    text = (bundle.path / "manifest.json").read_text()
    keys = set(json.loads(text))
    assert keys == {field.json_name for field in bundle_pb2.Bundle.DESCRIPTOR.fields}
    assert json_format.Parse(text, bundle_pb2.Bundle()) == bundle.manifest


def test_the_labelled_set_holds_ids_and_float32_features(bundle: Bundle) -> None:
    table = pq.read_table(bundle.labelled)
    assert [str(field.type) for field in table.schema] == [
        "string",
        "fixed_size_binary[16]",
        "fixed_size_list<element: float>[32]",
    ]
    assert table["digest"].to_pylist() == [content_digest(image) for image in images(2)]
    assert table["id"].to_pylist() == ["a", "b"]
    assert table["feature"].to_pylist()[1] == list(range(32, 64))


@pytest.mark.usefixtures("same_graphs")
def test_without_a_test_set_there_is_no_accuracy(model: AssistantModel, tmp_path: Path) -> None:
    bundle = exported(model, tmp_path / "made" / "on the way", pool_images=2, test_accuracy=None)
    assert not bundle.manifest.HasField("test_accuracy")
    assert "testAccuracy" not in json.loads((bundle.path / "manifest.json").read_text())


@pytest.mark.usefixtures("same_graphs")
def test_exporting_again_returns_the_existing_bundle_and_refuses_an_altered_one(
    model: AssistantModel, tmp_path: Path
) -> None:
    bundle = exported(model, tmp_path)
    before = (bundle.path / "manifest.json").read_bytes()
    assert exported(model, tmp_path) == bundle
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert list(tmp_path.iterdir()) == [bundle.path]
    bundle.labelled.write_bytes(b"altered")
    with pytest.raises(BundleError, match="altered"):
        exported(model, tmp_path)


@pytest.mark.usefixtures("same_graphs")
@pytest.mark.parametrize(
    "change",
    [
        {"test_accuracy": 0.75},
        {"classes": ("cat", "dog", "fox")},
        {"labelled_ids": ("a", "c")},
        {"config": TrainConfig(seed=2**63 + 1, task=TaskConfig(epochs=7))},
    ],
)
def test_other_facts_over_the_same_weights_are_another_model(
    change: dict[str, Any], model: AssistantModel, bundle: Bundle, tmp_path: Path
) -> None:
    other = exported(model, tmp_path, **change)
    assert other.model_id != bundle.model_id
    assert other.encoder_id == bundle.encoder_id
    assert exported(model, tmp_path).model_id == bundle.model_id


# The gates


def test_a_model_of_dark_images_is_exported_though_bright_ones_are_far_from_them(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task_model = ResNet18(Normalisation((0.006,) * 3, (0.004,) * 3), 3, 16, "cifar")
        dark = torch.randint(0, 4, (64, 12, 16, 3), dtype=torch.uint8)
        for _ in range(20):
            task_model(dark)
        features = task_model.eval()(dark)[0].detach()
        scaling, vae = FeatureScaling(features), Vae(128, 4, (16, 8))
        model = AssistantModel(task_model, scaling, vae, Assistant(4, 3, (8, 8))).eval().requires_grad_(False)
    bundle = exported(model, tmp_path, brightness=4 / 256)
    measured = {gate.name: gate.measured for gate in bundle.manifest.gates}
    assert measured["features_difference"] < 1e-5


def perturbed(graphs: Graphs, name: str, by: float) -> Graphs:
    def change(graph: bytes) -> bytes:
        proto = onnx.load_from_string(graph)
        for weight in proto.graph.initializer:
            if weight.name == f"model.{name}":
                values = onnx.numpy_helper.to_array(weight).copy()
                values.flat[0] += by
                weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return proto.SerializeToString()

    changed = replace(graphs, encoder=change(graphs.encoder), head=change(graphs.head))
    assert (changed.encoder != graphs.encoder) != (changed.head != graphs.head)
    return changed


@pytest.mark.parametrize(
    ("weight", "by", "match"),
    [
        ("assistant.layers.4.bias", 0.5, r"score_difference is [\d.e-]+, limit 0.0001"),
        ("assistant.layers.4.bias", 0.5, r"head_difference is [\d.e-]+, limit 0.0001"),
        ("assistant.layers.4.bias", math.nan, r"not_finite is 104, limit 0; .*score_difference is nan"),
        ("task_model.classifier.weight", 0.5, r"probabilities_difference is [\d.e-]+, limit 0.0001"),
        ("task_model.stages.2.1.conv2.weight", 0.5, r"features_difference is [\d.e-]+, limit 0.0001"),
    ],
)
def test_a_perturbed_weight_is_refused_and_nothing_is_published(
    weight: str, by: float, match: str, model: AssistantModel, graphs: Graphs, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(export, "onnx_graphs", lambda *_: perturbed(graphs, weight, by))
    with pytest.raises(ExportGateError, match=match) as caught:
        exported(model, tmp_path)
    assert caught.value.reason == "EXPORT_GATE"
    assert not any(float(value) <= 1e-4 for value in caught.value.metadata.values())
    assert list(tmp_path.iterdir()) == []
