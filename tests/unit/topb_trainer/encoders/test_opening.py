"""Encoders are found by name, and what cannot be used is refused with what was found and expected."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from topb.image_input import ImageInput, ResizeRule
from topb_trainer.config import ImageConfig, TaskConfig, TrainConfig
from topb_trainer.encoders.factory import FactoryEncoder
from topb_trainer.encoders.opening import completed, open_encoder
from topb_trainer.encoders.source import GraphEncoder, TorchEncoder, normalisation_moments
from topb_trainer.encoders.weights import load_weights
from topb_trainer.errors import ConfigurationError
from topb_trainer.models.resnet import Normalisation
from topb_trainer.models.task_network import ImageEncoder

HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def _factories(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    sys.modules.pop("factories", None)


def refused(**task: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        built(TaskConfig(**task))
    return caught.value


def built(task: TaskConfig) -> ImageEncoder:
    encoder = open_encoder(task, ImageConfig())
    assert isinstance(encoder, TorchEncoder)
    return encoder.build(HALF, 8, 8)


@pytest.mark.parametrize("name", ["Small", "Alone", "Named"])
def test_a_factory_gives_features_alone_or_with_logits(name: str) -> None:
    encoder = FactoryEncoder(f"factories:{name}", None).build(HALF, 8, 9)
    images = torch.randint(0, 256, (4, 8, 9, 3), dtype=torch.uint8)
    expected = encoder.backbone.features((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    torch.testing.assert_close(encoder(images), expected)
    assert encoder.feature_size == 8
    assert not encoder.training or not encoder.backbone.training


@pytest.mark.parametrize(
    ("encoder", "reason", "said"),
    [
        ("factories:fails", "FACTORY_UNUSABLE", "RuntimeError: no checkpoint here"),
        ("factories:absent", "FACTORY_UNUSABLE", "AttributeError"),
        ("nowhere_at_all:f", "FACTORY_UNUSABLE", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("factories:gives_a_list", "FACTORY_UNUSABLE", "returned a list; expected a torch module"),
        ("factories:Spatial", "ENCODER_OUTPUT", r"torch.float32 of shape (2, 8, 3, 3); expected features"),
        ("factories:Text", "ENCODER_OUTPUT", "gave a str; expected features of shape (2, D)"),
        ("nowhere.onnx", "ENCODER_GRAPH", "nowhere.onnx cannot be read as an ONNX file"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_refused(encoder: str, reason: str, said: str) -> None:
    error = refused(encoder=encoder)
    assert error.reason == reason
    assert said in str(error)


def test_weights_of_another_architecture_are_refused_with_what_differs(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    other = torch.nn.Sequential(torch.nn.Linear(2, 4), *(torch.nn.Linear(1, 1) for _ in range(4)))
    torch.save(other.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigurationError) as caught:
        load_weights(module, tmp_path / "w.pth")
    assert caught.value.reason == "WEIGHTS_MISMATCH"
    assert "the encoder has no 2.weight, 2.bias, 3.weight and 3 more" in str(caught.value)
    assert "0.weight is (4, 2) and should be (3, 2), 0.bias is (4,) and should be (3,)" in str(caught.value)


def test_weights_are_found_in_the_usual_containers(tmp_path: Path) -> None:
    module, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    parallel = {f"module.{name}": value for name, value in other.state_dict().items()}
    torch.save(
        {"state_dict": {**parallel, "module.fc.weight": torch.ones(1)}, "epoch": 3}, tmp_path / "w.pth"
    )
    load_weights(module, tmp_path / "w.pth", ignored=["fc."])
    assert torch.equal(module.weight, other.weight)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this would run",)


def test_no_code_in_a_weights_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(_Evil(), tmp_path / "w.pth")
    with pytest.raises(ConfigurationError, match="a pickle of more than tensors") as caught:
        load_weights(torch.nn.Linear(1, 1), tmp_path / "w.pth")
    assert caught.value.reason == "WEIGHTS_UNREADABLE"
    assert "this would run" not in capsys.readouterr().out
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    for file in ("list.pth", "none.pth"):
        with pytest.raises(ConfigurationError) as caught:
            load_weights(torch.nn.Linear(1, 1), tmp_path / file)
        assert caught.value.reason == "WEIGHTS_UNREADABLE"


def graph(
    path: Path, *, images: object = ("N", 4, 5, 3), kind: int = TensorProto.UINT8, width: int = 3
) -> Path:
    """Write a graph that averages images over their pixels."""
    inputs = [helper.make_tensor_value_info("images", kind, images)]
    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ("N", 3))]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["features"], keepdims=0),
    ]
    made = helper.make_graph(nodes, "mean", inputs, outputs, [axes])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=9), path)
    return path


def test_an_onnx_file_gives_its_bytes_and_its_size(tmp_path: Path) -> None:
    path = graph(tmp_path / "e.onnx")
    config = TrainConfig(task=TaskConfig(encoder=str(path)), image=ImageConfig(resize=ResizeRule.STRETCH))
    done = completed(config)
    assert (done.image.size, done.task.train, done.image.normalisation) == ((4, 5), "head", None)
    encoder = open_encoder(done.task, done.image)
    assert isinstance(encoder, GraphEncoder)
    assert encoder.graph == path.read_bytes()
    assert (encoder.input, encoder.feature_size) == (ImageInput(4, 5), 3)


@pytest.mark.parametrize(
    ("shape", "kind", "said"),
    [
        (
            ("N", 4, 5, 3),
            TensorProto.FLOAT,
            "takes images float (N, 4, 5, 3) and gives features float (N, 3)",
        ),
        ((1, 4, 5, 3), TensorProto.UINT8, "takes images uint8 (1, 4, 5, 3)"),
        (("N", 3, 4, 5), TensorProto.UINT8, "takes images uint8 (N, 3, 4, 5)"),
        (("N", "h", "w", 3), TensorProto.UINT8, "takes images uint8 (N, h, w, 3)"),
    ],
)
def test_another_graph_is_refused_with_its_inputs_and_outputs(
    shape: object, kind: int, said: str, tmp_path: Path
) -> None:
    error = refused(encoder=str(graph(tmp_path / "e.onnx", images=shape, kind=kind)))
    assert error.reason == "ENCODER_GRAPH"
    assert said in str(error)
    assert "`topb import` makes a bundle of any other graph" in str(error)


@pytest.mark.parametrize("more", [{"train": "all"}, {"weights": "w.pth"}])
def test_a_graph_is_not_trained_and_has_its_own_weights(more: dict[str, str], tmp_path: Path) -> None:
    assert refused(encoder=str(graph(tmp_path / "e.onnx")), **more).reason == "ENCODER_NOT_TRAINABLE"


@pytest.mark.parametrize("image", [ImageConfig(7), ImageConfig(normalisation="imagenet")])
def test_settings_that_contradict_a_graph_are_refused(image: ImageConfig, tmp_path: Path) -> None:
    task = TaskConfig(encoder=str(graph(tmp_path / "e.onnx")))
    with pytest.raises(ConfigurationError) as caught:
        open_encoder(task, image)
    assert caught.value.reason == "ENCODER_INPUT"


def test_normalisation_follows_the_encoder_unless_the_settings_name_one() -> None:
    def moments(task: TaskConfig, **image: object) -> object:
        return normalisation_moments(completed(TrainConfig(task=task, image=ImageConfig(**image))).image)

    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert moments(TaskConfig()) is None
    assert moments(TaskConfig(train="head")) == imagenet
    assert moments(TaskConfig(encoder="factories:Small")) == imagenet
    own = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert moments(TaskConfig(), mean=own[0], deviation=own[1]) == own


def test_a_resnet18_takes_its_own_weights_from_a_file_and_has_no_pretrained_ones(tmp_path: Path) -> None:
    from topb_trainer.encoders.resnet18 import frozen_resnet18, resnet18

    one = resnet18(TaskConfig(width=4), HALF, 10, 8, 8).eval()
    torch.save(one.state_dict(), tmp_path / "w.pth")
    other = frozen_resnet18(TaskConfig(width=4, weights=str(tmp_path / "w.pth")), HALF, 8, 8)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8))
    torch.testing.assert_close(other(images), one.encode(images))
    with pytest.raises(ConfigurationError, match=r"resnet18\.tv_in1k") as caught:
        resnet18(TaskConfig(weights="pretrained"), HALF, 10, 8, 8)
    assert caught.value.reason == "WEIGHTS_UNAVAILABLE"


def test_a_path_at_which_nothing_lies_is_no_name_of_timm(tmp_path: Path) -> None:
    error = refused(encoder=str(tmp_path / "missing"))
    assert error.reason == "ENCODER_UNKNOWN"
    assert "there is no bundle or ONNX file at" in str(error)
