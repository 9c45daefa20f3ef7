"""Features that a feature log keeps: later rounds and the scorer read no image, and get the same numbers."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.command_line import topb
from support.images import encode
from topb.image_input import ImageInput
from topb.results import SelectionResult
from topb_scorer.bundle import open_bundle
from topb_scorer.engines.local import LocalEngine
from topb_scorer.scoring.model_logs import logs_in
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec
from topb_trainer.config import ImageConfig, TaskConfig, TrainConfig
from topb_trainer.data.decoding import open_images
from topb_trainer.data.reading import read_labelled, read_pool
from topb_trainer.encoders.opening import completed
from topb_trainer.export import kept
from topb_trainer.export.frozen import freeze
from topb_trainer.export.kept import KeptFeatures, kept_features
from topb_trainer.runtime import progress
from topb_trainer.runtime.context import RoundContext

from ..conftest import write_parquet

pytestmark = pytest.mark.slow

TARGET = ImageInput(8, 8)


@pytest.fixture(autouse=True, scope="module")
def _factories() -> Iterator[None]:
    folder = str(Path(__file__).parents[1] / "encoders")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    sys.modules.pop("factories", None)


@pytest.fixture
def reader(digits, tmp_path: Path) -> KeptFeatures:
    config = completed(TrainConfig(task=TaskConfig(encoder="factories:Small"), image=ImageConfig(8)))
    encoder = freeze(config, TARGET, lambda: digits[0][:50])
    return kept_features(encoder, tmp_path / "state", RoundContext(config))


def test_sets_of_kept_features_are_those_of_images_encoded(
    reader: KeptFeatures, digit_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled, pool = digit_files / "labelled.parquet", digit_files / "pool.parquet"
    of_images = read_labelled(labelled, TARGET)
    images = read_pool(pool, TARGET, of_images.digest_of())
    for _ in range(2):  # The second time everything is kept.
        known = read_labelled(labelled, reader)
        unknown = read_pool(pool, reader, known.digest_of())
        assert (known.ids, known.digests, known.classes) == (
            of_images.ids,
            of_images.digests,
            of_images.classes,
        )
        assert (unknown.ids, unknown.labelled, unknown.skipped) == (images.ids, images.labelled, {})
        assert np.array_equal(known.labels, of_images.labels)
        for found, given in ((known.images, of_images.images), (unknown.images, images.images)):
            assert np.array_equal(found, reader.encoder.features(given, "these", reader.context))
        monkeypatch.setattr(kept, "encode_shards", lambda *_, **__: pytest.fail("no image is read"))


def test_a_log_shows_the_features_first_and_then_what_is_read_of_them(
    reader: KeptFeatures,
    digit_files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "_LOG_SECONDS", 1e-9)
    shown = replace(reader, context=replace(reader.context, progress=True))
    read_labelled(digit_files / "labelled.parquet", shown, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert list(dict.fromkeys(line.partition(":")[0] for line in lines)) == ["features", "decoding labelled"]


def test_an_altered_shard_is_encoded_again_and_what_cannot_be_decoded_is_counted(
    reader: KeptFeatures, digits, tmp_path: Path
) -> None:
    encoded = [encode(image) for image in digits[0][:6]]
    path = write_parquet(tmp_path / "p.parquet", [*"abcdef"], [*encoded[:5], b"no image"])
    first = read_pool(path, reader, {})
    (file,) = reader.log.directory.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    again = read_pool(path, reader, {})
    assert again.ids == first.ids == (*"abcde",)
    assert again.skipped == {"IMAGE_FORMAT_UNKNOWN": 1}
    assert np.array_equal(again.images, first.images)


def selected(bundle: Path, pool: Path, state: Path) -> SelectionResult:
    engine = LocalEngine(open_bundle(bundle))
    logs = logs_in(state, engine.bundle, needs_features=False)
    shards = open_images(pool).image_shards
    return select_from_pool(SelectionSpec(20, "aalu", 0), engine, shards, logs, cancelled=threading.Event())


def test_a_later_round_and_its_selection_read_no_image_of_the_pool(digit_files: Path, tmp_path: Path) -> None:
    """The pool's images are gone after the first round: only their features are kept."""
    pool = tmp_path / "pool"
    pool.mkdir()
    for name in ("pool", "labelled"):
        shutil.copy(digit_files / f"{name}.parquet", pool / f"{name}.parquet")
    out, state = tmp_path / "bundles", tmp_path / "state"
    paths = ["--labelled", pool / "labelled.parquet", "--pool", pool / "pool.parquet", "--out", out]
    small = ["--task.epochs", 2, "--cotrain.epochs", 1, "--vae.hidden", 8, "--assistant.hidden", 8, "--json"]
    first = ["--task.encoder", "factories:Small", "--image.height", 8]
    assert topb("train", *paths, *small, *first, "--state", state).exit_code == 0
    (bundle,) = out.iterdir()
    more = ["--task.encoder", bundle, "--round", 1, "--state", state]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("topb_scorer.imaging.load", lambda *_, **__: pytest.fail("an image is decoded"))
        told = topb("train", *paths, *small, *more)
        assert told.exit_code == 0, told.err
        (second,) = (path for path in out.iterdir() if path != bundle)
        picked = selected(second, pool / "pool.parquet", state)
    assert len(picked.picks) == 20
    assert open_bundle(second).encoder_id == open_bundle(bundle).encoder_id
    fresh = selected(second, pool / "pool.parquet", tmp_path / "other")
    assert [(pick.id, pick.score) for pick in picked.picks] == [(pick.id, pick.score) for pick in fresh.picks]
