"""The measurements of the gates, on scores made up for them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from topb_trainer.errors import ExportGateError
from topb_trainer.export import gates
from topb_trainer.export.gates import Gate, top_b_difference


def test_a_gate_that_measured_nothing_is_not_passed() -> None:
    gate = Gate("it", math.nan, 1.0, "")
    assert not gate.passed
    with pytest.raises(ExportGateError, match="it is nan"):
        gates.require([Gate("other", 0.5, 1.0, ""), gate])


@pytest.mark.parametrize(
    ("exported", "difference"),
    [
        ((0.9, 0.5, 0.8, 0.1), 0),
        ((0.91, 0.51, 0.81, 0.11), 0),
        # ONNX ranks the second best first: at b = 1 the pick is worse by 0.1, at b = 2 both agree.
        ((0.8, 0.5, 0.9, 0.1), 0.1),
        # The worst image is among the best two of ONNX: 0.1 in place of 0.8.
        ((0.9, 0.5, 0.7, 0.8), 0.7),
    ],
)
def test_the_top_b_gate_measures_by_how_much_a_pick_is_worse(
    exported: tuple[float, ...], difference: float
) -> None:
    expected = np.array([0.9, 0.5, 0.8, 0.1], np.float32)
    measured = top_b_difference(expected, np.array(exported, np.float32))
    assert measured == pytest.approx(difference)


def test_the_top_b_gate_agrees_with_its_definition() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        expected, exported = random.random((2, 9)).astype(np.float32)
        differences = []
        for b in range(1, 10):
            picked = np.argsort(-exported)[:b]
            differences.append(np.sort(expected)[-b] - expected[picked].min())
        assert top_b_difference(expected, exported) == pytest.approx(max(differences))
