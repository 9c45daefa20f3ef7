"""Rounds on vectors: T is a head, and the bundle has no encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from support.command_line import Outcome, topb
from support.images import encode, random_image
from support.vectors import fixed_lists
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.in_process import select_batch
from topb_scorer.scoring.session import GraphSession

pytestmark = pytest.mark.slow

CLASSES, WIDTH = 3, 16
CENTRES = 2 * np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
QUICK = ("--task.epochs", 200, "--cotrain.epochs", 2, "--vae.hidden", 16, "--device", "cpu")


def vectors_of(count: int, seed: int) -> tuple[list[str], NDArray[np.float32]]:
    """Return class names and vectors (count, D) near the centres of their classes."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % CLASSES
    vectors = CENTRES[classes] + random.normal(size=(count, WIDTH))
    return [f"class {class_}" for class_ in classes], vectors.astype(np.float32)


def write(path: Path, prefix: str, vectors: NDArray[np.float32], labels: list[str] | None = None) -> Path:
    columns: dict[str, Any] = {
        "id": [f"{prefix}-{row}" for row in range(len(vectors))],
        "embedding": fixed_lists(vectors),
    }
    if labels is not None:
        columns["label"] = labels
    pq.write_table(pa.table(columns), path, row_group_size=50)
    return path


def train(folder: Path, out: Path, *options: Any) -> Outcome:
    sets = ("--labelled", folder / "labelled.parquet", "--pool", folder / "pool.parquet")
    return topb("train", *sets, "--out", out, *QUICK, *options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    labels, labelled = vectors_of(30, 1)
    write(folder / "labelled.parquet", "labelled", labelled, labels)
    labels, test = vectors_of(90, 2)
    write(folder / "test.parquet", "test", test, labels)
    # The pool has the first labelled vector under another id.
    _, pool = vectors_of(200, 3)
    write(folder / "pool.parquet", "pool", np.concatenate([pool, labelled[:1]]))
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles")
    printed = json.loads(train(folder, out, "--test", folder / "test.parquet", "--json").printed)
    assert printed["pool"]["labelled"] == 1
    assert printed["pool"]["unlabelled"] == 200
    assert printed["test_accuracy"] > 0.9
    return open_bundle(Path(printed["path"]))


def test_the_bundle_has_no_encoder_and_the_vectors_as_labelled_features(bundle: Bundle) -> None:
    assert (bundle.encoder, bundle.encoder_id, bundle.manifest.HasField("input")) == (None, "", False)
    assert bundle.encoder_outputs == {"features": (WIDTH,)}
    assert {*bundle.output_shapes} == {"score", "probabilities", "features"}
    np.testing.assert_array_equal(bundle.labelled_features(), vectors_of(30, 1)[1])
    assert bundle.manifest.configuration["task"]["encoder"] == "none"


def test_the_pool_is_selected_from_with_the_new_bundle(bundle: Bundle, folder: Path) -> None:
    _, pool = vectors_of(200, 3)
    assert bundle.head is not None
    scores = GraphSession(bundle.head, batch_size=256).apply({"features": pool})["score"]
    result = select_batch(folder / "pool.parquet", 20, bundle=bundle.path, strategy="aalu")
    assert list(result.ids) == [f"pool-{row}" for row in np.argsort(-scores, kind="stable")[:20]]
    # The labelled vector under another id is left out by its content.
    assert result.accounts.excluded_labelled == 1
    for strategy in ("core_set", "badge", "entropy"):
        assert len(select_batch(folder / "pool.parquet", 5, bundle=bundle.path, strategy=strategy)) == 5


def test_a_seed_gives_the_same_model_id(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    options = ("--test", folder / "test.parquet", "--json")
    assert json.loads(train(folder, tmp_path, *options).printed)["model_id"] == bundle.model_id


def test_float16_rounds_the_vectors_for_training_and_scoring(folder: Path, tmp_path: Path) -> None:
    printed = train(folder, tmp_path, "--export.feature-type", "float16", "--json").printed
    rounding = open_bundle(Path(json.loads(printed)["path"]))
    halves = vectors_of(30, 1)[1].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(rounding.labelled_features(), halves)
    _, pool = vectors_of(200, 3)
    write(tmp_path / "halves.parquet", "pool", pool.astype(np.float16).astype(np.float32))
    exact, rounded = (
        select_batch(path, 200, bundle=rounding.path)
        for path in (folder / "pool.parquet", tmp_path / "halves.parquet")
    )
    assert exact.picks == rounded.picks


def test_rows_that_cannot_be_used_are_left_out_of_the_pool(folder: Path, tmp_path: Path) -> None:
    _, pool = vectors_of(20, 3)
    pool[4, 0] = np.nan
    write(tmp_path / "pool.parquet", "pool", pool)
    (tmp_path / "labelled.parquet").symlink_to(folder / "labelled.parquet")
    printed = json.loads(train(tmp_path, tmp_path / "out", "--json").printed)
    assert printed["pool"]["skipped"] == {"VECTOR_NOT_FINITE": 1}
    assert printed["pool"]["unlabelled"] == 19


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--task.encoder", "package:factory"),
            "no encoder takes, but task.encoder is package:factory",
        ),
        (("--task.train", "all"), "task.train all; leave them out"),
        (("--task.weights", "random"), "task.weights random"),
    ],
)
def test_settings_of_an_encoder_are_refused(
    options: tuple[str, ...], said: str, folder: Path, tmp_path: Path
) -> None:
    refused = train(folder, tmp_path, *options)
    assert refused.exit_code != 0
    assert said in " ".join(refused.err.split())


def test_sets_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(random_image(0)))
    sets = ("--out", tmp_path / "out", *QUICK)
    labelled = folder / "labelled.parquet"
    refused = topb("train", "--labelled", labelled, "--pool", tmp_path, *sets)
    assert "has images, but the labelled set has vectors of 16 numbers" in " ".join(refused.err.split())
    wide = write(tmp_path / "wide.parquet", "wide", np.zeros((3, WIDTH + 1), np.float32))
    refused = topb("train", "--labelled", labelled, "--pool", wide, *sets)
    assert "those of the labelled set have 16" in " ".join(refused.err.split())


def test_a_labelled_vector_that_cannot_be_used_is_refused(folder: Path, tmp_path: Path) -> None:
    labels, labelled = vectors_of(6, 1)
    labelled[2, 1] = np.inf
    write(tmp_path / "labelled.parquet", "labelled", labelled, labels)
    (tmp_path / "pool.parquet").symlink_to(folder / "pool.parquet")
    refused = train(tmp_path, tmp_path / "out")
    assert "the labelled vector labelled-2 cannot be used" in " ".join(refused.err.split())


def test_labels_need_parquet_files(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((3, WIDTH), np.float32))
    (tmp_path / "v.ids.txt").write_text("a\nb\nc\n")
    pool = folder / "pool.parquet"
    refused = topb(
        "train", "--labelled", tmp_path / "v.npy", "--pool", pool, "--out", tmp_path / "out", *QUICK
    )
    assert "expected Parquet files with id, label and embedding" in " ".join(refused.err.split())


def test_an_experiment_compares_methods_on_vectors(folder: Path, tmp_path: Path) -> None:
    labels, vectors = vectors_of(120, 5)
    data = write(tmp_path / "train.parquet", "row", vectors, labels)
    out = tmp_path / "study"
    done = topb(
        "experiment",
        *("--data", data, "--test", folder / "test.parquet", "--out", out, "--seeds", 1),
        *("--methods", "aalu", "random", "core_set"),
        *("--protocol.initial", 0.2, "--protocol.step", 0.2, "--protocol.final", 0.4),
        *(f"--train.{option[2:]}" if str(option).startswith("--") else option for option in QUICK),
    )
    assert done.exit_code == 0, done.err
    assert topb("report", out, "--out", tmp_path / "report").exit_code == 0
