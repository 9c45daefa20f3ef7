"""Models of timm, with random weights and with weights from files. Nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from topb.image_input import ResizeRule
from topb_trainer.config import ImageConfig, TaskConfig, TrainConfig
from topb_trainer.encoders.opening import completed, open_encoder
from topb_trainer.encoders.source import TorchEncoder
from topb_trainer.errors import ConfigurationError
from topb_trainer.models.resnet import Normalisation

NAME = "test_efficientnet.r160_in1k"
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm")


def opened(name: str, weights: str, **image: object) -> TorchEncoder:
    encoder = open_encoder(TaskConfig(encoder=name, weights=weights), ImageConfig(**image))
    assert isinstance(encoder, TorchEncoder)
    return encoder


def test_a_model_brings_its_own_preprocessing(timm: Any) -> None:
    done = completed(TrainConfig(task=TaskConfig(encoder=NAME, weights="random"))).image
    assert done == ImageConfig(
        160,
        160,
        ResizeRule.COVER_AND_CENTER_CROP,
        mean=(0.485, 0.456, 0.406),
        deviation=(0.229, 0.224, 0.225),
    )
    given = ImageConfig(64, resize=ResizeRule.STRETCH, normalisation="labelled")
    kept = completed(TrainConfig(task=TaskConfig(encoder=NAME, weights="random"), image=given)).image
    assert (kept.size, kept.resize, kept.normalisation, kept.mean) == ((64, 64), "stretch", "labelled", ())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_come_from_a_file_with_or_without_a_classifier(
    timm: Any, suffix: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = timm.create_model(NAME, pretrained=False).eval()
    file = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        torch.save(model.state_dict(), file)
    else:
        pytest.importorskip("safetensors.torch").save_file(model.state_dict(), file)
    encoder = opened(NAME, str(file)).build(HALF, 64, 64)
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(HALF(images)), pre_logits=True)
        torch.testing.assert_close(encoder(images), expected)
    assert encoder.feature_size == 256


def test_weights_of_another_architecture_are_refused(timm: Any, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigurationError, match=r"it lacks conv_stem\.weight, .* and \d+ more") as caught:
        opened(NAME, str(tmp_path / "w.pth")).build(HALF, 64, 64)
    assert caught.value.reason == "WEIGHTS_MISMATCH"


def test_a_transformer_takes_another_size_if_its_positions_are_new(timm: Any) -> None:
    assert opened("test_vit", "random").build(HALF, 96, 96).feature_size == 64
    with pytest.raises(
        ConfigurationError, match=r"\(97\) should be divisible .* check image\.height"
    ) as caught:
        opened("test_vit", "random").build(HALF, 97, 97)
    assert caught.value.reason == "ENCODER_OUTPUT"


@pytest.mark.parametrize(
    ("name", "near"), [("test_efficientnt", "test_efficientnet?"), ("test_efficientnet.x", "r160_in1k")]
)
def test_an_unknown_model_is_answered_with_the_nearest(timm: Any, name: str, near: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        opened(name, "random")
    assert caught.value.reason == "ENCODER_UNKNOWN"
    assert near in str(caught.value)


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigurationError, match=r"pip install topb\[timm\]") as caught:
        opened("mobilenetv3_small_100", "random")
    assert caught.value.reason == "EXTRA_MISSING"
