"""The measurements of the gates, on scores made up for them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from topb_trainer.errors import ExportGateError
from topb_trainer.export import gates
from topb_trainer.export.gates import (
    Gate,
    extreme_images,
    in_first_order,
    other_order,
    relative_difference,
    row_independence,
    top_b_difference,
)


def test_a_gate_that_measured_nothing_does_not_pass() -> None:
    gate = Gate("it", math.nan, 1.0, "")
    assert not gate.passed
    with pytest.raises(ExportGateError, match=r"the copy differs, so .*: it is nan"):
        gates.require([Gate("other", 0.5, 1.0, ""), gate], "the copy differs")


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


def test_a_difference_is_relative_to_the_values_of_its_row_or_to_usual_ones() -> None:
    usual = np.full((5, 3), 6.0, np.float32)
    large, small = usual.copy(), usual.copy()
    large[2] = 600
    small[2] = 0.006
    for expected, by, relative in ((usual, 0.06, 0.01), (large, 0.06, 1e-4), (small, 0.06, 0.01)):
        exported = expected.copy()
        exported[2, 1] += by
        assert relative_difference(expected, exported, 0) == pytest.approx(relative, rel=1e-4)
        assert relative_difference(expected, exported, 1000) == pytest.approx(by / 1000, rel=1e-3)
    assert relative_difference(usual * 0, usual * 0, 0) == 0
    assert math.isnan(relative_difference(usual, usual * np.nan, 0))


def test_extreme_images_span_the_range_of_values_and_keep_what_the_image_shows() -> None:
    dark = np.random.default_rng(0).integers(3, 9, (50, 4, 6, 3)).astype(np.uint8)
    extreme = extreme_images(dark)
    assert extreme.shape == (64, 4, 6, 3)
    assert {(int(image.min()), int(image.max())) for image in extreme[:2]} == {(0, 0), (255, 255)}
    assert np.array_equal(extreme[2], 255 - dark[0])
    assert all((image.min(), image.max()) == (0, 255) for image in extreme[33:])
    assert np.array_equal(
        extreme[33].argsort(axis=None, kind="stable"), dark[0].argsort(axis=None, kind="stable")
    )
    assert len(extreme_images(dark[:1])) == 4


def test_an_image_whose_outputs_change_with_its_batch_is_counted() -> None:
    outputs = {"score": np.arange(4, dtype=np.float32), "features": np.ones((4, 2), np.float32)}
    assert row_independence(outputs, outputs).passed
    changed = outputs["features"].copy()
    changed[[1, 3], 0] = np.nextafter(1, 2, dtype=np.float32)
    gate = row_independence(outputs, outputs | {"features": changed})
    assert (gate.measured, gate.passed) == (2, False)


@pytest.mark.parametrize("count", [104, 128, 256, 320])
def test_no_image_keeps_the_images_of_its_batch_in_the_other_order(count: int) -> None:
    batch = 64
    before = {row: row // batch for row in range(count)}
    order = other_order(count).tolist()
    for start in range(0, count, batch):
        assert len({before[row] for row in order[start : start + batch]}) == -(-count // batch)
    outputs = {"features": np.arange(count, dtype=np.float32)[:, None]}
    shuffled = {"features": outputs["features"][other_order(count)]}
    np.testing.assert_array_equal(
        in_first_order(shuffled, other_order(count))["features"], outputs["features"]
    )
