from __future__ import annotations

import re
from pathlib import Path

import pytest

import topb_scorer
from support.reasons import reasons_in
from topb_scorer import strategies
from topb_scorer.strategies.diversity import Diversified
from topb_scorer.strategies.options import options_of

pytestmark = pytest.mark.scorer

ROOT = Path(__file__).resolve().parents[3]
# Reasons about arrays that only a caller of the Python functions can get wrong.
OF_FUNCTIONS = {
    "BUDGET_NEGATIVE",
    "FEATURES_DTYPE",
    "FEATURES_NOT_FINITE",
    "FEATURES_SHAPE",
    "PROBABILITIES_OUT_OF_RANGE",
    "PROBABILITIES_SHAPE",
}


def test_every_reason_that_the_scorer_gives_is_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"[A-Z][A-Z0-9_]+", text))

    assert reasons_in(topb_scorer) - documented - OF_FUNCTIONS == set()


def test_every_strategy_is_documented() -> None:
    text = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")

    assert [name for name in strategies.names() if f"`{name}`" not in text] == []


def test_every_option_of_a_strategy_is_documented() -> None:
    text = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    declaring = [*(type(strategies.configured(name, {})) for name in strategies.names()), Diversified]
    options = {option for strategy in declaring for option in options_of(strategy)}

    assert options
    assert [option for option in options if f"`{option}`" not in text] == []
