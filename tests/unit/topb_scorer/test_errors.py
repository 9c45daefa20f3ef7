from __future__ import annotations

import pickle
import re

import pytest

from topb_scorer import errors
from topb_scorer.errors import InvalidRequestError, ScorerError, SelectionCancelledError, UnavailableError

pytestmark = pytest.mark.scorer


def test_the_error_tree_in_the_docstring_lists_every_error() -> None:
    _root, *drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    defined = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ScorerError) and value is not ScorerError
    ]
    assert sorted(drawn) == sorted(defined)


@pytest.mark.parametrize(
    "error",
    [
        SelectionCancelledError(),
        UnavailableError("busy", reason="SELECTIONS_BUSY", retry_delay=2.5),
        InvalidRequestError("budget 0", reason="BUDGET_NOT_POSITIVE", budget=0),
    ],
)
def test_an_error_survives_pickling(error: ScorerError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))
