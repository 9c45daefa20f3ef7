"""The gates on real photos, if TOPB_TEST_DATA names a folder with their Parquet files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from topb.image_input import ResizeRule
from topb_trainer.config import ImageConfig, TrainConfig
from topb_trainer.data.reading import image_input, read_labelled, read_pool
from topb_trainer.data.sets import RoundData
from topb_trainer.rounds import train_round
from topb_trainer.runtime.context import RoundContext

FOLDER = os.environ.get("TOPB_TEST_DATA", "")


@pytest.mark.slow
@pytest.mark.skipif(
    not FOLDER,
    reason="TOPB_TEST_DATA names no folder with cifar10_train.parquet and caltech101_train.parquet",
)
@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("cifar10_train", ImageConfig()),
        ("caltech101_train", ImageConfig(96, 96)),
        ("caltech101_train", ImageConfig(64, 80, resize=ResizeRule.COVER_AND_CENTER_CROP)),
    ],
)
def test_torch_and_onnx_agree_on_real_photos(
    name: str, image: ImageConfig, tiny: TrainConfig, tmp_path: Path
) -> None:
    rows = pq.read_table(Path(FOLDER) / f"{name}.parquet", columns=["id", "image", "label"]).slice(0, 400)
    pq.write_table(rows.slice(0, 120), tmp_path / "labelled.parquet")
    pq.write_table(rows.drop_columns("label"), tmp_path / "pool.parquet")
    target = image_input(image, tmp_path / "labelled.parquet")
    labelled = read_labelled(tmp_path / "labelled.parquet", target)
    pool = read_pool(tmp_path / "pool.parquet", target, labelled.digest_of())
    config = replace(tiny, image=image, task=replace(tiny.task, width=16))
    bundle = train_round(
        RoundData(labelled, pool, None, target), RoundContext(config), tmp_path / "bundles"
    ).bundle
    assert (len(labelled.ids), len(pool.ids)) == (120, 280)
    assert all(gate.measured <= gate.limit for gate in bundle.manifest.gates)
    assert "over 256 images of the pool and 64 extreme ones" in bundle.manifest.gates[0].meaning
