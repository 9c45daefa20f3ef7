"""Reading ONNX files, and files that are not what they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, numpy_helper

from support.onnx_models import classifier, saved
from topb_trainer.errors import ModelImportError
from topb_trainer.importing.onnx_file import read_onnx, to_bytes


def with_external_data(path: Path, location: str = "weights.bin", least: int = 0) -> Path:
    model = classifier()
    external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=least)
    onnx.save_model(model, str(path))
    if location != "weights.bin":
        moved = onnx.load(str(path), load_external_data=False)
        for tensor in moved.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value
        saved(moved, path)
    return path


def test_weights_in_another_file_of_the_directory_are_packed(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "model.onnx")
    assert (tmp_path / "weights.bin").stat().st_size
    packed = onnx.load_model_from_string(to_bytes(read_onnx(path)))
    assert not any(tensor.external_data for tensor in packed.graph.initializer)
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in classifier().graph.initializer}
    for tensor in packed.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), expected[tensor.name])


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link.bin"])
def test_weights_outside_the_directory_are_refused(location: str, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    path = with_external_data(directory / "model.onnx", location)
    (directory / "weights.bin").rename(tmp_path / "weights.bin")
    (directory / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelImportError, match=f"is in {location}, which is outside of") as caught:
        read_onnx(path)
    assert caught.value.reason == "IMPORT_EXTERNAL_DATA"


@pytest.mark.parametrize(
    ("damage", "message"), [(Path.unlink, "is missing"), (lambda file: file.write_bytes(b""), "shorter")]
)
def test_weights_that_are_missing_or_cut_short_are_refused(damage, message: str, tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "model.onnx")
    damage(tmp_path / "weights.bin")
    with pytest.raises(ModelImportError, match=message):
        read_onnx(path)


def test_weights_of_a_constant_node_in_another_file_are_packed(tmp_path: Path) -> None:
    model = classifier()
    tensor = model.graph.initializer.pop()
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    external_data_helper.convert_model_to_external_data(model, convert_attribute=True, size_threshold=0)
    onnx.save_model(model, str(tmp_path / "model.onnx"))
    packed = onnx.load_model_from_string(to_bytes(read_onnx(tmp_path / "model.onnx")))
    assert tensor.name in {constant.name for constant in packed.graph.initializer}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a model", b"some text\n" * 9, None])
def test_files_that_are_not_onnx_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelImportError, match=r"model\.onnx") as caught:
        read_onnx(path)
    assert caught.value.reason == "IMPORT_NOT_ONNX"


@pytest.mark.parametrize(("opset", "message"), [(999, "too new for ONNX Runtime"), (6, "older than 7")])
def test_an_unsupported_opset_is_refused(opset: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelImportError, match=rf"ai.onnx {opset}: {message}") as caught:
        read_onnx(saved(classifier(opset=opset), tmp_path / "model.onnx"))
    assert caught.value.reason == "IMPORT_OPSET"


def test_an_unsupported_ir_version_is_refused(tmp_path: Path) -> None:
    model = classifier()
    model.ir_version = 99
    with pytest.raises(ModelImportError, match="IR version 99"):
        read_onnx(saved(model, tmp_path / "model.onnx"))
