"""The graphs that are made of imported models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from support.onnx_models import BODY, CLASSES, FEATURES, NHWC, SIZE, classifier, saved
from topb.image_input import ResizeRule
from topb_scorer.scoring.session import GraphSession
from topb_trainer.errors import ModelImportError
from topb_trainer.importing.input_rule import InputOptions
from topb_trainer.importing.onnx_file import read_onnx
from topb_trainer.importing.onnx_model import ChosenValues, ImportedModel, import_onnx

IMAGENET = InputOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CHOSEN = ChosenValues("embedding", logits="logits")


def imported(
    model: onnx.ModelProto,
    tmp_path: Path,
    chosen: ChosenValues = CHOSEN,
    options: InputOptions = IMAGENET,
) -> ImportedModel:
    return import_onnx(read_onnx(saved(model, tmp_path / "model.onnx")), chosen, options)


def images(count: int = 7, height: int = SIZE, width: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def applied(model: ImportedModel, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Run both graphs as the scorer does, in padded batches of another size than the number of images."""
    outputs = GraphSession(model.graphs.encoder, batch_size=4).apply({"images": pixels})
    if model.graphs.head is not None:
        outputs |= GraphSession(model.graphs.head, batch_size=4).apply(outputs)
    return outputs


def reference(pixels: NDArray[np.uint8], options: InputOptions = IMAGENET) -> NDArray[np.float32]:
    """Return the numbers, (N, 3, H, W), that `classifier` takes for images, in float64 arithmetic."""
    numbers = (pixels / 255 - np.array(options.mean)) / np.array(options.std)
    return numbers.transpose(0, 3, 1, 2).astype(np.float32)


def outputs_of(model: onnx.ModelProto, pixels: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return all values of a model by the reference implementation of ONNX, one image at a time."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    named = {output.name for output in whole.graph.output}
    whole.graph.output.extend(
        onnx.ValueInfoProto(name=name)
        for node in whole.graph.node
        for name in node.output
        if name not in named
    )
    evaluator = onnx.reference.ReferenceEvaluator(whole)
    rows = [evaluator.run(None, {whole.graph.input[0].name: pixels[i : i + 1]}) for i in range(len(pixels))]
    names = [output.name for output in whole.graph.output]
    return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(names)}


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("batch", ["N", "1", "2"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_features_and_probabilities_are_those_of_the_model(layout: str, batch: str, tmp_path: Path) -> None:
    shape = f"{batch}, 3, {SIZE}, {SIZE}" if layout == "nchw" else f"{batch}, {SIZE}, {SIZE}, 3"
    model = classifier(
        BODY if layout == "nchw" else NHWC,
        inputs=f"float[{shape}] pixels",
        outputs=f"float[{batch}, {CLASSES}] logits",
    )
    found = imported(model, tmp_path)
    pixels = images()
    values = outputs_of(classifier(), reference(pixels))
    outputs = applied(found, pixels)
    assert {name: array.shape for name, array in outputs.items()} == {
        "features": (7, FEATURES),
        "probabilities": (7, CLASSES),
    }
    np.testing.assert_allclose(outputs["features"], values["embedding"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], softmax(values["logits"]), rtol=1e-4, atol=1e-5)
    original = found.original(pixels)
    np.testing.assert_array_equal(original["features"], outputs["features"])
    assert found.rule.layout == layout
    assert found.class_count == CLASSES


CLASS_TOKEN = """
    patches = Conv <strides = [4, 4]> (pixels, patch_kernel)
    rows = Reshape (patches, rows_shape)
    tokens = Transpose <perm = [0, 2, 1]> (rows)
    with_class = Concat <axis = 1> (class_token, tokens)
    mixed = Softmax <axis = 1> (with_class)
    first = Gather <axis = 1> (mixed, zero)
    embedding = Mul (first, hundred)
    logits = Gemm (embedding, dense, bias)
"""


def test_a_transformer_that_was_exported_for_one_image_takes_any_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = classifier(
        CLASS_TOKEN,
        inputs=f"float[1, 3, {SIZE}, {SIZE}] pixels",
        outputs=f"float[1, {CLASSES}] logits",
        more={
            "patch_kernel": rng.normal(0, 0.1, (FEATURES, 3, 4, 4)).astype(np.float32),
            "rows_shape": np.array([1, FEATURES, -1]),
            "class_token": rng.normal(0, 1, (1, 1, FEATURES)).astype(np.float32),
            "zero": np.array(0),
            "hundred": np.array(100, np.float32),
        },
    )
    outputs = applied(imported(model, tmp_path), images())
    values = outputs_of(model, reference(images()))
    np.testing.assert_allclose(outputs["features"], values["embedding"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs["probabilities"], softmax(values["logits"]), rtol=1e-4, atol=1e-4)


def test_a_graph_that_cannot_take_another_number_of_images_is_refused(tmp_path: Path) -> None:
    body = BODY.replace(
        "embedding = Flatten (pooled)", "shifted = Add (pooled, offsets)\nembedding = Flatten (shifted)"
    )
    model = classifier(
        body,
        inputs=f"float[3, 3, {SIZE}, {SIZE}] pixels",
        outputs=f"float[3, {CLASSES}] logits",
        more={"offsets": np.ones((3, FEATURES, 1, 1), np.float32)},
    )
    with pytest.raises(ModelImportError, match=r"exported for 3 images .* dynamic batch dimension") as caught:
        imported(model, tmp_path)
    assert caught.value.reason == "IMPORT_BATCH"


def test_a_classifier_of_more_than_the_features_is_an_output_of_the_encoder(tmp_path: Path) -> None:
    body = BODY + "unit = LpNormalization <axis = 1> (embedding)\n"
    found = imported(classifier(body), tmp_path, ChosenValues("unit", logits="logits"))
    assert found.graphs.encoder_shapes == {"features": (FEATURES,), "logits": (CLASSES,)}
    outputs = applied(found, images())
    values = outputs_of(classifier(body), reference(images()))
    np.testing.assert_allclose(outputs["features"], values["unit"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], softmax(values["logits"]), rtol=1e-4, atol=1e-5)


def test_features_of_one_pixel_are_flattened_and_the_head_gets_them_back(tmp_path: Path) -> None:
    outputs = applied(imported(classifier(), tmp_path, ChosenValues("pooled", logits="logits")), images())
    values = outputs_of(classifier(), reference(images()))
    np.testing.assert_allclose(outputs["features"], values["embedding"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], softmax(values["logits"]), rtol=1e-4, atol=1e-5)


def test_probabilities_of_the_graph_are_used_as_they_are(tmp_path: Path) -> None:
    model = classifier(BODY + "p = Softmax (logits)\n", outputs=f"float[N, {CLASSES}] p")
    found = imported(model, tmp_path, ChosenValues("embedding", probabilities="p"))
    values = outputs_of(model, reference(images()))
    np.testing.assert_allclose(applied(found, images())["probabilities"], values["p"], rtol=1e-4, atol=1e-6)


def test_without_a_classifier_there_are_only_features(tmp_path: Path) -> None:
    found = imported(classifier(), tmp_path, ChosenValues("embedding"))
    assert found.graphs.head is None
    assert applied(found, images()).keys() == {"features"}


def test_logits_may_be_the_features_too(tmp_path: Path) -> None:
    found = imported(classifier(), tmp_path, ChosenValues("logits", logits="logits"))
    outputs = applied(found, images())
    assert outputs.keys() == {"features", "probabilities"}
    np.testing.assert_allclose(outputs["probabilities"], softmax(outputs["features"]), rtol=1e-5)


def test_a_model_in_float16_has_features_that_float16_holds(tmp_path: Path) -> None:
    halves = {name: values.astype(np.float16) for name, values in _all_weights().items()}
    model = classifier(
        inputs=f"float16[N, 3, {SIZE}, {SIZE}] pixels", outputs=f"float16[N, {CLASSES}] logits", more=halves
    )
    found = imported(model, tmp_path)
    assert found.is_float16
    outputs = applied(found, images())
    features = outputs["features"]
    np.testing.assert_array_equal(features, features.astype(np.float16).astype(np.float32))
    values = outputs_of(classifier(), reference(images()))
    np.testing.assert_allclose(features, values["embedding"], rtol=0.01, atol=0.01)
    np.testing.assert_allclose(outputs["probabilities"], softmax(values["logits"]), atol=0.02)


def _all_weights() -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in classifier().graph.initializer}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_model_that_takes_uint8_needs_no_normalisation(layout: str, tmp_path: Path) -> None:
    body, shape = (BODY, f"3, {SIZE}, {SIZE}") if layout == "nchw" else (NHWC, f"{SIZE}, {SIZE}, 3")
    body = "    floats = Cast <to = 1> (pixels)\n" + body.replace("(pixels", "(floats")
    model = classifier(body, inputs=f"uint8[N, {shape}] pixels")
    found = imported(model, tmp_path, options=InputOptions())
    given = images() if layout == "nhwc" else images().transpose(0, 3, 1, 2)
    expected = outputs_of(model, given)["embedding"]
    np.testing.assert_allclose(applied(found, images())["features"], expected, rtol=1e-4, atol=1e-3)
    with pytest.raises(ModelImportError, match="takes uint8 pixels, but mean and std"):
        imported(model, tmp_path)


def test_a_model_that_takes_and_gives_float64_is_converted(tmp_path: Path) -> None:
    body = "    floats = Cast <to = 1> (pixels)\n" + BODY.replace("(pixels", "(floats")
    body += "doubles = Cast <to = 11> (embedding)\n"
    model = classifier(body, inputs=f"double[N, 3, {SIZE}, {SIZE}] pixels")
    found = imported(model, tmp_path, ChosenValues("doubles", logits="logits"))
    expected = outputs_of(classifier(), reference(images()))["embedding"]
    np.testing.assert_allclose(applied(found, images())["features"], expected, rtol=1e-4, atol=1e-5)


def test_the_centre_is_cropped_and_channels_are_reversed_in_the_graph(tmp_path: Path) -> None:
    options = replace(IMAGENET, before_crop=(20, 24), bgr=True)
    found = imported(classifier(), tmp_path, options=options)
    assert found.rule.target.resize is ResizeRule.COVER_AND_CENTER_CROP
    pixels = images(5, 20, 24)
    expected = outputs_of(classifier(), reference(pixels[:, 2:18, 4:20, ::-1]))
    np.testing.assert_allclose(
        applied(found, pixels)["features"], expected["embedding"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(found.original(pixels)["features"], applied(found, pixels)["features"])


def test_a_graph_of_any_size_is_fixed_to_the_given_one(tmp_path: Path) -> None:
    model = classifier(inputs="float[N, 3, H, W] pixels")
    found = imported(model, tmp_path, options=replace(IMAGENET, size=(12, 20)))
    assert (found.rule.target.height, found.rule.target.width) == (12, 20)
    pixels = images(5, 12, 20)
    values = outputs_of(model, reference(pixels))
    np.testing.assert_allclose(applied(found, pixels)["features"], values["embedding"], rtol=1e-4, atol=1e-5)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    first, again = imported(classifier(), tmp_path), imported(classifier(), tmp_path)
    assert first.graphs == again.graphs
    assert first.settings == again.settings


def test_an_input_on_which_nothing_chosen_depends_is_left_out(tmp_path: Path) -> None:
    model = classifier(
        BODY + "counts = Cast <to = 1> (tokens)\n",
        inputs=f"int64[N, 7] tokens, float[N, 3, {SIZE}, {SIZE}] pixels",
        outputs=f"float[N, {CLASSES}] logits, float[N, 7] counts",
    )
    assert applied(imported(model, tmp_path), images())["features"].shape == (7, FEATURES)


def test_an_old_opset_is_extended_with_its_own_operators(tmp_path: Path) -> None:
    options = replace(IMAGENET, before_crop=(20, 20), bgr=True)
    found = imported(classifier(opset=7), tmp_path, options=options)
    assert applied(found, images(3, 20, 20))["probabilities"].shape == (3, CLASSES)
