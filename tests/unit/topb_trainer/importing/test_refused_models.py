"""Models that cannot be imported, and what the errors say about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import topb_trainer.importing
from support.onnx_models import BODY, CLASSES, FEATURES, SIZE, classifier, saved
from support.reasons import reasons_in
from topb_trainer.errors import ModelImportError
from topb_trainer.importing.input_rule import InputOptions
from topb_trainer.importing.onnx_file import read_onnx
from topb_trainer.importing.onnx_model import ChosenValues, import_onnx

IMAGENET = InputOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CHOSEN = ChosenValues("embedding", logits="logits")
DOCS = Path(__file__).parents[4] / "docs"


@pytest.mark.parametrize(
    ("model", "chosen", "options", "reason", "message"),
    [
        (
            classifier(),
            ChosenValues(None),
            IMAGENET,
            "IMPORT_FEATURES",
            r"give --features NAME. Its outputs are logits float32 \(N, 5\). .*embedding float32 \(N, 8\).*"
            "try --features embedding",
        ),
        (
            classifier(),
            ChosenValues("embeding"),
            IMAGENET,
            "IMPORT_VALUE_UNKNOWN",
            r"no value 'embeding', which --features names. Did you mean 'embedding'\? Its outputs are logits",
        ),
        (classifier(), ChosenValues("embedding", logits="no"), IMAGENET, "IMPORT_VALUE_UNKNOWN", "--logits"),
        (
            classifier(),
            ChosenValues("active"),
            IMAGENET,
            "IMPORT_FEATURES",
            r"active is float32 \(N, 8, 8, 8\); expected .* \(N, D\)",
        ),
        (
            classifier(BODY + "flat = Reshape (active, one_row)\n", more={"one_row": np.array([-1, 8])}),
            ChosenValues("flat", logits="logits"),
            IMAGENET,
            "IMPORT_ROWS",
            r"for 3 images, flat has the shape \(192, 8\); expected 3 rows",
        ),
        (
            classifier(inputs="float[N, 3, H, W] pixels"),
            CHOSEN,
            IMAGENET,
            "IMPORT_SIZE",
            r"pixels float32 \(N, 3, H, W\), whose height and width are not fixed.*--size 224",
        ),
        (
            classifier(),
            CHOSEN,
            replace(IMAGENET, size=(32, 32)),
            "IMPORT_SIZE",
            "does not take images of 32×32 pixels",
        ),
        (
            classifier(inputs="float[N, C, H, W] pixels"),
            CHOSEN,
            replace(IMAGENET, size=(16, 16)),
            "IMPORT_LAYOUT",
            "give --layout nchw or --layout nhwc",
        ),
        (classifier(), CHOSEN, replace(IMAGENET, layout="nhwc"), "IMPORT_LAYOUT", "cannot be NHWC"),
        (
            classifier(inputs=f"float[N, 1, {SIZE}, {SIZE}] pixels"),
            CHOSEN,
            IMAGENET,
            "IMPORT_LAYOUT",
            "no dimension of 3 channels",
        ),
        (
            classifier(
                BODY.replace("Gemm (embedding, dense, bias)", "Gemm (embedding, dense, extra)"),
                inputs=f"float[N, 3, {SIZE}, {SIZE}] pixels, float[{CLASSES}] extra",
            ),
            CHOSEN,
            IMAGENET,
            "IMPORT_INPUTS",
            r"from 2 inputs: pixels float32 .*, extra float32 \(5\)",
        ),
        (
            classifier("logits = Gemm (pixels, dense, bias)", inputs=f"float[N, {FEATURES}] pixels"),
            ChosenValues("logits"),
            IMAGENET,
            "IMPORT_INPUTS",
            "expected images of the shape",
        ),
        (classifier(), CHOSEN, InputOptions(), "IMPORT_NORMALISATION", "nothing says how pixels"),
        (classifier(), CHOSEN, InputOptions(mean=(0.5, 0.5)), "IMPORT_NORMALISATION", "mean has 2 numbers"),
        (classifier(), CHOSEN, InputOptions(std=(1, 1, 0)), "IMPORT_NORMALISATION", "above 0"),
        (classifier(), CHOSEN, replace(IMAGENET, before_crop=(8, 8)), "IMPORT_SIZE", "at least that size"),
        (
            classifier(),
            ChosenValues("embedding", logits="logits", probabilities="logits"),
            IMAGENET,
            "IMPORT_PROBABILITIES",
            "both --logits and --probabilities",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_refused_with_what_was_found(
    model: onnx.ModelProto,
    chosen: ChosenValues,
    options: InputOptions,
    reason: str,
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ModelImportError, match=message) as caught:
        import_onnx(read_onnx(saved(model, tmp_path / "model.onnx")), chosen, options)
    assert caught.value.reason == reason


def test_every_reason_is_documented() -> None:
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert {reason for reason in reasons_in(topb_trainer.importing) if reason not in text} == set()
