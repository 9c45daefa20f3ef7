"""What preprocessor_config.json says about images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from topb.image_input import ResizeRule
from topb_trainer.errors import ModelImportError
from topb_trainer.importing.input_rule import InputOptions, read_preprocessor_config

VIT = {
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "size": {"height": 224, "width": 192},
}
STRETCH, COVER = ResizeRule.STRETCH, ResizeRule.COVER_AND_CENTER_CROP


@pytest.mark.parametrize(
    ("config", "size", "resize", "before_crop"),
    [
        (VIT, (224, 192), STRETCH, (224, 192)),
        (VIT | {"size": 224}, (224, 224), STRETCH, None),
        (
            VIT | {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224},
            (224, 224),
            COVER,
            (256, 256),
        ),
        (
            VIT
            | {
                "size": {"height": 256, "width": 256},
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
            },
            (224, 224),
            STRETCH,
            (256, 256),
        ),
        (VIT | {"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 224), COVER, (256, 256)),
        (VIT | {"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384), STRETCH, None),
        (VIT | {"do_resize": False}, None, None, None),
    ],
)
def test_sizes(
    config: dict[str, Any], size: object, resize: object, before_crop: object, tmp_path: Path
) -> None:
    options, remarks = read(config, tmp_path)
    assert (options.size, options.resize, options.before_crop) == (size, resize, before_crop)
    assert remarks == []
    assert (options.mean, options.std, options.scale) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255)


def read(config: dict[str, Any], tmp_path: Path) -> tuple[InputOptions, list[str]]:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(config))
    return read_preprocessor_config(path)


def test_scale_and_order_of_channels(tmp_path: Path) -> None:
    options, _ = read(VIT | {"do_normalize": False, "do_flip_channel_order": True}, tmp_path)
    assert (options.scale, options.mean, options.std, options.bgr) == (1 / 255, None, None, True)
    assert read(VIT | {"do_rescale": False}, tmp_path)[0].scale == 1
    assert read(VIT | {"rescale_factor": 1 / 127.5}, tmp_path)[0].scale == 1 / 127.5


def test_another_resampling_is_remarked(tmp_path: Path) -> None:
    _, (remark,) = read(VIT | {"resample": 3}, tmp_path)
    assert "bicubic" in remark


@pytest.mark.parametrize(
    "change",
    [
        {"do_pad": True},
        {"size": {"longest_edge": 224}},
        {"size": {"height": -1, "width": 3}},
        {"image_mean": "0.5?"},
    ],
)
def test_what_topb_cannot_do_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelImportError, match=r"preprocessor_config\.json") as caught:
        read(VIT | change, tmp_path)
    assert caught.value.reason == "IMPORT_PREPROCESSOR"


def test_options_override_the_file_and_a_size_replaces_the_crop(tmp_path: Path) -> None:
    beside, _ = read(
        VIT | {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, tmp_path
    )
    options = InputOptions(size=(128, 128), mean=(0.0,)).over(beside)
    assert (options.size, options.before_crop, options.mean) == ((128, 128), None, (0.0,))
    assert options.std == beside.std
    assert InputOptions().over(beside) == beside
