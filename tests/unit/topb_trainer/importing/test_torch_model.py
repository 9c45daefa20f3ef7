"""Models in torch become bundles: the user's own modules, and those of timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from topb_scorer.bundle import Bundle
from topb_scorer.scoring.model_session import ModelSession
from topb_trainer.errors import ConfigurationError, ModelImportError
from topb_trainer.importing.imported_bundle import publish_imported, synthetic_images
from topb_trainer.importing.input_rule import InputOptions
from topb_trainer.importing.torch_model import TorchModel, import_torch, timm_model, torch_module

from ..encoders import factories

pytestmark = pytest.mark.slow

FACTORIES = factories.__name__
OPTIONS = InputOptions(size=(16, 20), mean=(0.5,), std=(0.25,))
TIMM = "test_efficientnet.r160_in1k"


def published(model: TorchModel, tmp_path: Path) -> Bundle:
    imported = import_torch(model)
    names = [str(index) for index in range(imported.class_count)]
    target = imported.rule.target
    return publish_imported(imported, names, None, synthetic_images(target.height, target.width), tmp_path)


def images(height: int = 16, width: int = 20) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, height, width, 3), np.uint8)


def normalised(pixels: NDArray[np.uint8], mean: Any = 0.5, std: Any = 0.25) -> torch.Tensor:
    numbers = (pixels / 255 - np.array(mean)) / np.array(std)
    return torch.tensor(numbers.transpose(0, 3, 1, 2), dtype=torch.float32)


@pytest.mark.parametrize("factory", ["Small", "Named"])
def test_a_module_of_features_and_logits_becomes_encoder_and_head(factory: str, tmp_path: Path) -> None:
    bundle = published(torch_module(f"{FACTORIES}:{factory}", None, OPTIONS), tmp_path)
    scored = ModelSession(bundle).score(images())
    with torch.no_grad():
        features, logits = factories.Small().eval()(normalised(images()))
    np.testing.assert_allclose(scored["features"], features.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scored["probabilities"], logits.softmax(1).numpy(), rtol=1e-4, atol=1e-5)
    assert bundle.manifest.configuration["import"]["place"] == f"{FACTORIES}:{factory}"


def test_a_module_of_features_alone_has_no_head(tmp_path: Path) -> None:
    bundle = published(torch_module(f"{FACTORIES}:Alone", None, OPTIONS), tmp_path)
    assert bundle.head is None


def test_weights_of_a_file_replace_those_of_the_module(tmp_path: Path) -> None:
    torch.manual_seed(9)
    other = factories.Small()
    torch.nn.init.normal_(other.out.weight)
    torch.save(other.state_dict(), tmp_path / "w.pth")
    bundle = published(torch_module(f"{FACTORIES}:Small", tmp_path / "w.pth", OPTIONS), tmp_path)
    with torch.no_grad():
        _, logits = other.eval()(normalised(images()))
    scored = ModelSession(bundle).score(images())["probabilities"]
    np.testing.assert_allclose(scored, logits.softmax(1).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("factory", "options", "error", "reason"),
    [
        ("Small", InputOptions(mean=(0.5,)), ModelImportError, "IMPORT_SIZE"),
        ("Small", InputOptions(size=(16, 16)), ModelImportError, "IMPORT_NORMALISATION"),
        ("Spatial", OPTIONS, ModelImportError, "IMPORT_FEATURES"),
        ("Text", OPTIONS, ModelImportError, "IMPORT_GRAPH"),
        ("Mixing", OPTIONS, ModelImportError, "IMPORT_MIXES_IMAGES"),
        ("missing", OPTIONS, ConfigurationError, "FACTORY_UNUSABLE"),
    ],
)
def test_modules_that_cannot_be_imported_are_refused(
    factory: str, options: InputOptions, error: type[Exception], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        published(torch_module(f"{FACTORIES}:{factory}", None, options), tmp_path)
    assert caught.value.reason == reason


@pytest.mark.parametrize("classes", [7, 0])
def test_a_model_of_timm_has_the_classifier_of_its_weights_file(classes: int, tmp_path: Path) -> None:
    timm: Any = pytest.importorskip("timm")
    torch.manual_seed(1)
    model = timm.create_model(TIMM, pretrained=False, num_classes=classes).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    bundle = published(timm_model(TIMM, str(tmp_path / "w.pth"), InputOptions()), tmp_path)
    assert (bundle.input.height, bundle.class_count) == (160, classes)
    pixels = images(160, 160)
    numbers = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    scored = ModelSession(bundle).score(pixels)
    with torch.no_grad():
        features = model.forward_head(model.forward_features(numbers), pre_logits=True)
        np.testing.assert_allclose(scored["features"], features.numpy(), rtol=1e-3, atol=1e-4)
        if classes:
            expected = model(numbers).softmax(1).numpy()
            np.testing.assert_allclose(scored["probabilities"], expected, rtol=1e-3, atol=1e-4)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    timm: Any = pytest.importorskip("timm")
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigurationError, match="another architecture") as caught:
        timm_model(TIMM, str(tmp_path / "w.pth"), InputOptions())
    assert caught.value.reason == "WEIGHTS_MISMATCH"
