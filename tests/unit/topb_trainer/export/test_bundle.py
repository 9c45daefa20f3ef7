"""The bundle: its contents, its reproducibility, and that a bundle that fails a gate is never published."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from google.protobuf import json_format

from topb.image_input import ImageInput, ResizeRule
from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle, sha256_of
from topb_scorer.errors import BundleError
from topb_scorer.pools import content_digest
from topb_trainer.config import TrainConfig
from topb_trainer.data.sets import LabelledSet, RoundData, UnlabelledSet
from topb_trainer.errors import ExportGateError
from topb_trainer.export import bundle as export
from topb_trainer.export.bundle import export_bundle
from topb_trainer.export.graph import onnx_graph
from topb_trainer.models.assistant import Assistant
from topb_trainer.models.resnet import Normalisation, ResNet18
from topb_trainer.models.scoring import FeatureScaling, ScoringModel
from topb_trainer.models.vae import Vae
from topb_trainer.runtime.context import RoundContext

pytestmark = pytest.mark.slow

TARGET = ImageInput(12, 16, ResizeRule.COVER_AND_CENTER_CROP)
CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def model() -> ScoringModel:
    """Return a model that is untrained except for its batch norms, where exporters go wrong."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task_model = ResNet18(Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), 3, 4, "cifar")
        images = torch.randint(0, 256, (64, 12, 16, 3), dtype=torch.uint8)
        for _ in range(3):
            task_model(images)
        features = task_model.eval()(images)[0].detach()
        scoring = ScoringModel(
            task_model, FeatureScaling(features), Vae(32, 4, (16, 8)), Assistant(4, 3, (8, 8))
        )
    return scoring.eval().requires_grad_(False)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 16, 3), np.uint8)


def exported(
    model: ScoringModel,
    parent: Path,
    *,
    pool_images: int = 40,
    test_accuracy: float | None = 0.625,
    brightness: float = 1,
) -> Bundle:
    pool = (images(pool_images) * brightness).astype(np.uint8)
    data = RoundData(
        LabelledSet(("a", "b"), images(2), np.array([0, 1]), CLASSES),
        UnlabelledSet(tuple(map(str, range(pool_images))), pool),
        None,
        TARGET,
    )
    return export_bundle(
        model,
        data,
        np.arange(64, dtype=np.float32).reshape(2, 32),
        RoundContext(TrainConfig(seed=2**63 + 1), index=3),
        method="aalu",
        test_accuracy=test_accuracy,
        parent=parent,
    )


@pytest.fixture(scope="module")
def graph(model: ScoringModel) -> bytes:
    """Return the graph of the model. Exporting takes seconds, so most tests share it."""
    return onnx_graph(model, 12, 16)


@pytest.fixture
def same_graph(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "onnx_graph", lambda *_: graph)


@pytest.fixture(scope="module")
def bundle(model: ScoringModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(model, tmp_path_factory.mktemp("bundles"))


def test_a_bundle_is_a_directory_named_after_its_model_id_with_three_files(bundle: Bundle) -> None:
    assert bundle.path.name == bundle.model_id == sha256_of(bundle.graph)[:16]
    files = {file.name for file in bundle.path.iterdir()}
    assert files == {"labelled.parquet", "manifest.json", "scorer.onnx"}
    assert list(bundle.path.parent.iterdir()) == [bundle.path]


def test_the_graph_takes_uint8_images_of_any_number_and_gives_float32_by_name(bundle: Bundle) -> None:
    session = onnxruntime.InferenceSession(str(bundle.graph), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [12, 16, 3])
    assert isinstance(taken.shape[0], str)
    shapes = {output.name: (output.type, output.shape[1:]) for output in session.get_outputs()}
    float32 = "tensor(float)"
    assert shapes == {"score": (float32, []), "probabilities": (float32, [3]), "features": (float32, [32])}
    for count in (1, 2, 7):
        score, probabilities, features = session.run(None, {"images": images(count)})
        assert (score.shape, probabilities.shape, features.shape) == ((count,), (count, 3), (count, 32))
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_the_graph_holds_its_weights_and_neither_decoder_nor_log_variance(bundle: Bundle) -> None:
    graph = onnx.load(bundle.graph, load_external_data=False).graph
    names = {tensor.name for tensor in graph.initializer}
    assert not any("decoder" in name or "log_variance" in name for name in names)
    assert not any(tensor.external_data for tensor in graph.initializer)
    onnx.checker.check_model(str(bundle.graph))


def test_the_graph_holds_no_information_about_the_machine(bundle: Bundle) -> None:
    text = str(onnx.load(bundle.graph))
    repository = str(Path(__file__).parents[4])
    assert not any(
        note in text for note in ("metadata_props", "doc_string", ".py", "site-packages", repository)
    )


def test_the_same_model_exports_to_the_same_bytes(graph: bytes, bundle: Bundle) -> None:
    assert graph == bundle.graph.read_bytes()


def test_the_manifest_describes_model_data_and_gates(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.schema_version, manifest.method, manifest.round) == (1, "aalu", 3)
    assert (manifest.input.height, manifest.input.width) == (12, 16)
    assert bundle.input == TARGET
    assert tuple(manifest.classes) == CLASSES
    outputs = {output.name: list(output.shape) for output in manifest.outputs}
    assert outputs == {"score": [], "probabilities": [3], "features": [32]}
    assert bundle.strategies == {"aalu", "entropy", "least_confidence", "margin", "random"}
    assert (manifest.labelled_count, manifest.test_accuracy, manifest.seed) == (2, 0.625, 2**63 + 1)
    assert manifest.configuration["cotrain"]["ranking_weight"] == 10
    assert list(manifest.configuration["vae"]["hidden"]) == [512, 256]
    assert {"torch", "onnx", "onnxruntime", "python", "topb"} <= set(manifest.library_versions)
    assert {file.name for file in manifest.files} == {"scorer.onnx", "labelled.parquet"}
    assert manifest.create_time.seconds > 1_700_000_000
    differences = [f"{name}_difference" for name in ("score", "probabilities", "features", "top_b")]
    assert [gate.name for gate in manifest.gates] == ["not_finite", *differences, "batch_dependence"]
    assert all(gate.measured <= gate.limit <= 1e-4 for gate in manifest.gates)
    assert all("40 images of the pool and 64 extreme ones" in gate.meaning for gate in manifest.gates[:-1])


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


@pytest.mark.usefixtures("same_graph")
def test_without_a_test_set_there_is_no_accuracy(model: ScoringModel, tmp_path: Path) -> None:
    bundle = exported(model, tmp_path / "made" / "on the way", pool_images=2, test_accuracy=None)
    assert not bundle.manifest.HasField("test_accuracy")
    assert "testAccuracy" not in json.loads((bundle.path / "manifest.json").read_text())


@pytest.mark.usefixtures("same_graph")
def test_exporting_again_returns_the_existing_bundle_and_refuses_an_altered_one(
    model: ScoringModel, tmp_path: Path
) -> None:
    bundle = exported(model, tmp_path)
    before = (bundle.path / "manifest.json").read_bytes()
    assert exported(model, tmp_path) == bundle
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert list(tmp_path.iterdir()) == [bundle.path]
    bundle.labelled.write_bytes(b"altered")
    with pytest.raises(BundleError, match="altered"):
        exported(model, tmp_path)


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
        model = ScoringModel(task_model, scaling, vae, Assistant(4, 3, (8, 8))).eval().requires_grad_(False)
    bundle = exported(model, tmp_path, brightness=4 / 256)
    measured = {gate.name: gate.measured for gate in bundle.manifest.gates}
    assert measured["features_difference"] < 1e-5


def perturbed(graph: bytes, name: str, by: float) -> bytes:
    proto = onnx.load_from_string(graph)
    (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += by
    weight.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("weight", "by", "match"),
    [
        ("assistant.layers.4.bias", 0.5, r"score_difference is [\d.e-]+, limit 0.0001"),
        ("assistant.layers.4.bias", math.nan, r"not_finite is 104, limit 0; score_difference is nan"),
        ("task_model.classifier.weight", 0.5, r"probabilities_difference is [\d.e-]+, limit 0.0001"),
        ("task_model.stages.2.1.conv2.weight", 0.5, r"features_difference is [\d.e-]+, limit 0.0001"),
    ],
)
def test_a_perturbed_weight_is_refused_and_nothing_is_published(
    weight: str, by: float, match: str, model: ScoringModel, graph: bytes, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(export, "onnx_graph", lambda *_: perturbed(graph, weight, by))
    with pytest.raises(ExportGateError, match=match) as caught:
        exported(model, tmp_path)
    assert caught.value.reason == "EXPORT_GATE"
    assert not any(float(value) <= 1e-4 for value in caught.value.metadata.values())
    assert list(tmp_path.iterdir()) == []
