"""The networks: shapes, widths, stems and layers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torchvision.models import resnet18

from topb_trainer.models.assistant import Assistant
from topb_trainer.models.resnet import Normalisation, ResNet18, stem_for
from topb_trainer.models.scoring import AssistantModel, FeatureScaling
from topb_trainer.models.vae import Vae, sample

HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)


def test_the_imagenet_stem_with_width_64_is_torchvisions_resnet18() -> None:
    ours, theirs = ResNet18(HALF, 10, 64, "imagenet").eval(), resnet18(num_classes=10).eval()
    # The modules are the same, in the same order, with other names.
    values = list(theirs.state_dict().values())
    names = [name for name in ours.state_dict() if not name.startswith("normalisation")]
    assert len(names) == len(values)
    ours.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    batch = images(3, 64, 64)
    expected = theirs((batch.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    torch.testing.assert_close(ours(batch)[1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "width"), [((8, 8), 4), ((32, 32), 8), ((33, 17), 4), ((1, 1), 4)])
def test_features_are_eight_times_the_width(size: tuple[int, int], width: int) -> None:
    features, logits = ResNet18(HALF, 7, width, "cifar").eval()(images(2, *size))
    assert (features.shape, logits.shape) == ((2, 8 * width), (2, 7))


def test_the_cifar_stem_keeps_the_resolution_and_the_imagenet_stem_quarters_it() -> None:
    batch = torch.rand(2, 3, 32, 32)
    assert ResNet18(HALF, 7, 4, "cifar").stem(batch).shape == (2, 4, 32, 32)
    assert ResNet18(HALF, 7, 4, "imagenet").stem(batch).shape == (2, 4, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 8])
def test_a_narrow_task_model_trains_on_images_of_224_pixels(width: int) -> None:
    # In a process of its own, which crashed.
    program = (
        "import torch; from topb_trainer.models.resnet import Normalisation, ResNet18\n"
        "torch.set_num_threads(1)\n"
        f"model = ResNet18(Normalisation((0, 0, 0), (1, 1, 1)), 2, {width}, 'imagenet')\n"
        "model.to(memory_format=torch.channels_last)\n"
        "for _ in range(4):\n"
        "    model(torch.randint(0, 256, (16, 224, 224, 3), dtype=torch.uint8))[1].sum().backward()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("size", [7, 8])
def test_training_and_scoring_compute_the_same_shortcut(size: int) -> None:
    convolution = ResNet18(HALF, 7, 4, "cifar").stages[1][0].downsample[0]
    pixels = torch.rand(2, 4, size, size)
    torch.testing.assert_close(convolution.train()(pixels), convolution.eval()(pixels))


def test_auto_takes_the_cifar_stem_up_to_64_pixels() -> None:
    assert stem_for("auto", 64, 64) == "cifar"
    assert stem_for("auto", 64, 65) == "imagenet"
    assert stem_for("imagenet", 32, 32) == "imagenet"


def test_normalisation_takes_pixels_to_mean_0_and_deviation_1() -> None:
    batch = images(2, 4, 5)
    out = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))(batch)
    expected = (batch / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.4, 0.5, 0.6])
    torch.testing.assert_close(out, expected.permute(0, 3, 1, 2))


def test_encoder_decoder_and_assistant_have_three_layers() -> None:
    vae, assistant = Vae(20, 4, (16, 8)), Assistant(4, 10, (16, 16))
    assert sum(p.ndim == 2 for p in vae.trunk.parameters()) + 1 == 3  # and one of the two heads
    assert sum(p.ndim == 2 for p in vae.decoder.parameters()) == 3
    assert sum(p.ndim == 2 for p in assistant.parameters()) == 3
    mean, log_variance = vae.encode(torch.rand(5, 20))
    assert mean.shape == log_variance.shape == (5, 4)
    assert vae.decode(mean).shape == (5, 20)
    assert assistant(mean, torch.rand(5, 10)).shape == (5,)
    assert torch.equal(vae.encode_mean(torch.ones(2, 20)), vae.encode(torch.ones(2, 20))[0])


def test_samples_have_the_encoders_mean_and_variance() -> None:
    mean, log_variance = torch.full((100_000, 1), 3.0), torch.full((100_000, 1), 1.2)
    drawn = sample(mean, log_variance, torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(3, abs=0.03)
    assert drawn.var().log().item() == pytest.approx(1.2, abs=0.03)


def test_a_constant_feature_is_shifted_and_not_scaled() -> None:
    features = torch.cat([torch.rand(50, 2), torch.full((50, 1), 4.0)], dim=1)
    scaled = FeatureScaling(features)(features)
    assert torch.equal(scaled[:, 2], torch.zeros(50))


def test_the_score_is_the_logit_of_the_assistant_on_mean_and_prediction() -> None:
    task_model, vae, assistant = ResNet18(HALF, 3, 4, "cifar"), Vae(32, 4, (16, 8)), Assistant(4, 3, (8, 8))
    model = AssistantModel(task_model, torch.nn.Identity(), vae, assistant).eval()
    batch = images(6, 8, 8)
    score, probabilities, features = (model(batch)[name] for name in ("score", "probabilities", "features"))
    expected_features, logits = task_model(batch)
    assert torch.equal(features, expected_features)
    assert torch.equal(probabilities, logits.softmax(1))
    assert torch.equal(score, assistant(vae.encode(features)[0], probabilities))


def test_scores_stay_distinct_where_the_output_of_the_assistant_rounds_to_1() -> None:
    model = AssistantModel(
        ResNet18(HALF, 3, 4, "cifar"), torch.nn.Identity(), Vae(32, 4, (16, 8)), Assistant(4, 3, (64, 64))
    ).eval()
    batch, last = images(20, 8, 8), model.assistant.layers[-1]
    with torch.no_grad():
        last.weight *= 300  # logits far apart for float32, whatever the random weights
        last.bias += 40 - model(batch)["score"].mean()
        score = model(batch)["score"]
    assert torch.equal(score.sigmoid(), torch.ones(20))
    assert len(score.unique()) == 20
