"""The measurements of the gates, on scores made up for them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from topb_trainer.errors import ExportGateError
from topb_trainer.export import gates
from topb_trainer.export.gates import Gate, top_b_difference


def test_a_gate_that_measured_nothing_does_not_pass() -> None:
    gate = Gate("it", math.nan, 1.0, "")
    assert not gate.passed
    with pytest.raises(ExportGateError, match="it is nan"):
        gates.require([Gate("other", 0.5, 1.0, ""), gate])


def test_the_top_b_gate_measures_by_how_much_the_worst_pick_falls_short() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        expected, exported = random.random((2, 9)).astype(np.float32)
        differences = []
        for b in range(1, 10):
            picked = np.argsort(-exported)[:b]
            differences.append(np.sort(expected)[-b] - expected[picked].min())
        assert top_b_difference(expected, exported) == pytest.approx(max(differences))
        assert top_b_difference(expected, expected / 2 + 0.1) == 0  # other scores, the same order
