"""Bundles of imported models: their gates, their labelled sets, and the strategies that they serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper

from support.images import random_pool, write_parquet
from support.onnx_models import BODY, CLASSES, FEATURES, SIZE, classifier, saved
from topb.v1 import bundle_pb2
from topb_scorer.bundle import Bundle
from topb_scorer.in_process import select_batch
from topb_scorer.pools import content_digest
from topb_scorer.scoring.model_session import ModelSession
from topb_trainer.data.decoding import first_images
from topb_trainer.errors import ExportGateError, InvalidDataError, ModelImportError
from topb_trainer.export.publishing import Graphs
from topb_trainer.importing.imported_bundle import CheckedImages, publish_imported, synthetic_images
from topb_trainer.importing.input_rule import InputOptions
from topb_trainer.importing.labelled import LabelledImages, read_labelled_images
from topb_trainer.importing.onnx_file import read_onnx
from topb_trainer.importing.onnx_model import ChosenValues, ImportedModel, import_onnx

CHOSEN = ChosenValues("embedding", logits="logits")
NAMES = tuple("abcde")


def imported(
    tmp_path: Path, model: onnx.ModelProto | None = None, chosen: ChosenValues = CHOSEN
) -> ImportedModel:
    source = read_onnx(saved(model or classifier(), tmp_path / "model.onnx"))
    return import_onnx(source, chosen, InputOptions(mean=(0.5,), std=(0.5,)))


def published(
    model: ImportedModel,
    tmp_path: Path,
    labelled: LabelledImages | None = None,
    checked: CheckedImages | None = None,
) -> Bundle:
    checked = checked or synthetic_images(SIZE, SIZE)
    return publish_imported(model, NAMES[: model.class_count], labelled, checked, tmp_path / "bundles")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "pool.parquet", random_pool(60))


def test_the_bundle_tells_where_it_comes_from_and_what_it_was_compared_on(tmp_path: Path, pool: Path) -> None:
    model = imported(tmp_path)
    real = CheckedImages(first_images(pool, 10, model.rule.target), "images of pool.parquet")
    bundle = published(model, tmp_path, checked=real)
    manifest = bundle.manifest
    assert (manifest.method, manifest.round, manifest.labelled_count) == ("imported", 0, 0)
    assert tuple(manifest.classes) == NAMES
    assert manifest.feature_type == bundle_pb2.FEATURE_TYPE_FLOAT32
    assert manifest.configuration["import"]["features"] == "embedding"
    assert manifest.configuration["import"]["input"]["layout"] == "nchw"
    assert "the value embedding of the imported model" in [output.meaning for output in manifest.outputs]
    gates = {gate.name: gate for gate in manifest.gates}
    assert set(gates) == {
        "not_finite", "features_difference", "probabilities_difference", "batch_dependence",
    }  # fmt: skip
    assert "over 10 images of pool.parquet and 22 extreme ones" in gates["features_difference"].meaning
    assert all(gate.measured <= gate.limit for gate in manifest.gates)
    assert not bundle.manifest.HasField("test_accuracy")
    assert manifest.encoder_frozen


def test_importing_again_returns_the_same_bundle(tmp_path: Path) -> None:
    first = published(imported(tmp_path), tmp_path)
    assert published(imported(tmp_path), tmp_path) == first
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [first.model_id]


@pytest.mark.parametrize(
    "strategy",
    ["entropy", "margin", "least_confidence", "badge", "core_set", "typiclust", "prob_cover", "random"],
)
def test_strategies_work_at_once(strategy: str, tmp_path: Path, pool: Path) -> None:
    model = imported(tmp_path)
    labelled = read_labelled_images(_subset(pool, 5), None, model.rule.target)
    bundle = published(model, tmp_path, labelled)
    options = {"radius": "1.0"} if strategy == "prob_cover" else None
    result = select_batch(pool, 7, bundle=bundle.path, strategy=strategy, strategy_options=options)
    assert len(set(result.ids)) == 7
    assert not set(result.ids) & set(labelled.ids)
    assert result.accounts.excluded == 5


def _subset(pool: Path, count: int) -> Path:
    path = pool.with_name("labelled.parquet")
    pq.write_table(pq.read_table(pool).slice(3, count), path)
    return path


def test_aalu_is_refused_because_nothing_trained_an_assistant(tmp_path: Path, pool: Path) -> None:
    bundle = published(imported(tmp_path), tmp_path)
    with pytest.raises(Exception, match="aalu") as caught:
        select_batch(pool, 7, bundle=bundle.path, strategy="aalu")
    assert caught.value.reason == "STRATEGY_NOT_SERVED"


def test_features_alone_serve_strategies_that_need_no_classifier(tmp_path: Path, pool: Path) -> None:
    bundle = published(imported(tmp_path, chosen=ChosenValues("embedding")), tmp_path)
    assert (bundle.head, bundle.class_count) == (None, 0)
    assert len(select_batch(pool, 7, bundle=bundle.path, strategy="typiclust").ids) == 7
    with pytest.raises(Exception, match="entropy") as caught:
        select_batch(pool, 7, bundle=bundle.path, strategy="entropy")
    assert caught.value.reason == "STRATEGY_NOT_SERVED"


def test_a_classifier_beside_the_features_serves_too(tmp_path: Path, pool: Path) -> None:
    model = classifier(BODY + "unit = LpNormalization <axis = 1> (embedding)\n")
    bundle = published(imported(tmp_path, model, ChosenValues("unit", logits="logits")), tmp_path)
    assert bundle.encoder_outputs == {"features": (FEATURES,), "logits": (CLASSES,)}
    assert len(select_batch(pool, 7, bundle=bundle.path, strategy="badge").ids) == 7


# The labelled set


def test_the_labelled_set_has_the_features_that_the_scorer_computes(tmp_path: Path, pool: Path) -> None:
    model = imported(tmp_path)
    images = pq.read_table(pool).slice(3, 5)
    bundle = published(model, tmp_path, read_labelled_images(_subset(pool, 5), None, model.rule.target))
    digests = [content_digest(image) for image in images["image"].to_pylist()]
    assert bundle.labelled_digests() == dict(zip(images["id"].to_pylist(), digests, strict=True))
    decoded = first_images(pool, 8, model.rule.target)[3:]
    scored = ModelSession(bundle).score(decoded)["features"]
    np.testing.assert_array_equal(bundle.labelled_features(), scored)


def test_a_list_of_ids_or_contents_takes_its_images_from_the_pool(tmp_path: Path, pool: Path) -> None:
    rows = pq.read_table(pool)
    first, second = rows["id"][4].as_py(), rows["id"][9].as_py()
    digest = content_digest(rows["image"][9].as_py())
    listed = tmp_path / "ids.parquet"
    table = {"id": [first, "elsewhere"], "digest": pa.array([None, digest], pa.binary(16))}
    pq.write_table(pa.table(table), listed)
    target = imported(tmp_path).rule.target
    found = read_labelled_images(listed, pool, target)
    assert found.ids == (first, second)
    assert found.digests == (content_digest(rows["image"][4].as_py()), digest)


@pytest.mark.parametrize(
    ("ids", "with_pool", "message"),
    [(["img-00001"], False, "lists 1 ids without images"), (["img-00001", "no"], True, "lacks 1 of the 2")],
)
def test_a_list_whose_images_are_missing_is_refused(
    ids: list[str], with_pool: bool, message: str, tmp_path: Path, pool: Path
) -> None:
    listed = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"id": ids}), listed)
    target = imported(tmp_path).rule.target
    with pytest.raises(InvalidDataError, match=message) as caught:
        read_labelled_images(listed, pool if with_pool else None, target)
    assert caught.value.reason == "LABELLED_WITHOUT_IMAGES"


def test_a_labelled_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    twice = write_parquet(tmp_path / "twice.parquet", random_pool(2) + random_pool(1))
    with pytest.raises(InvalidDataError, match="occurs twice"):
        read_labelled_images(twice, None, imported(tmp_path).rule.target)


# The gates


def test_batch_norm_in_training_mode_is_refused_and_named(tmp_path: Path) -> None:
    body = BODY.replace("active = Relu (conv)", "active = Relu (normal)")
    model = classifier(body, more={name: np.ones(FEATURES, np.float32) for name in ("ones", "mean", "var")})
    norm = helper.make_node(
        "BatchNormalization", ["conv", "ones", "mean", "mean", "var"], ["normal", "m", "v"], training_mode=1,
        name="/norm",
    )  # fmt: skip
    model.graph.node.insert(1, norm)
    for name in ("ones", "mean", "var"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(FEATURES, np.float32), name))
    with pytest.raises(ModelImportError, match="/norm is a batch normalisation in training mode") as caught:
        published(imported(tmp_path, model), tmp_path)
    assert caught.value.reason == "IMPORT_MIXES_IMAGES"
    assert not list((tmp_path / "bundles").iterdir())


def test_dynamic_quantisation_is_refused_and_named(tmp_path: Path) -> None:
    body = BODY.replace(
        "embedding = Flatten (pooled)",
        """
        flat = Flatten (pooled)
        whole, step, zero = DynamicQuantizeLinear (flat)
        embedding = DequantizeLinear (whole, step, zero)
    """,
    )
    with pytest.raises(ModelImportError, match=r"quantises by the largest value of the whole batch"):
        published(imported(tmp_path, classifier(body)), tmp_path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = classifier(
        BODY.replace("Flatten (pooled)", "Flatten (logs)").replace(
            "embedding =", "logs = Log (pooled)\nembedding ="
        )
    )
    with pytest.raises(ExportGateError, match="not_finite is"):
        published(imported(tmp_path, model), tmp_path)


def test_a_graph_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    model = imported(tmp_path)
    other = imported(tmp_path, classifier(BODY.replace("strides = [2, 2]", "strides = [1, 1]")))
    graphs = Graphs(
        other.graphs.encoder, model.graphs.head, model.graphs.encoder_shapes, model.graphs.head_shapes
    )
    with pytest.raises(ExportGateError, match=r"something else than the model, .* features_difference is"):
        published(replace(model, graphs=graphs), tmp_path)


SOFTMAX = BODY + "p = Softmax (logits)\n"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (ChosenValues("embedding", logits="p"), "p does not hold logits: .* --probabilities"),
        (
            ChosenValues("embedding", probabilities="logits"),
            "logits does not hold probabilities: .* --logits",
        ),
    ],
)
def test_logits_and_probabilities_are_not_taken_for_one_another(
    chosen: ChosenValues, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelImportError, match=message) as caught:
        published(imported(tmp_path, classifier(SOFTMAX), chosen), tmp_path)
    assert caught.value.reason == "IMPORT_PROBABILITIES"
