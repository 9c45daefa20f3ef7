from __future__ import annotations

import pytest

from topb.commands._result_output import show_result
from topb.results import Accounts, SelectionResult

pytestmark = pytest.mark.sdk


@pytest.mark.parametrize(("share", "warned"), [(0.08, True), (0.5, False), (0.9, False), (None, False)])
def test_picks_that_cover_little_of_the_pool_are_warned_about(
    share: float | None, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    measures = {} if share is None else {"covered_share": share, "ball_radius": 0.25}
    result = SelectionResult(
        picks=(),
        accounts=Accounts(read=0, scored=0, skipped={}, duplicate=0, excluded=0),
        model="m",
        strategy="prob_cover",
        seed=0,
        budget=0,
        elapsed_seconds=0.0,
        measures=measures,
    )
    show_result(result, out=None, as_json=False, quiet=True)
    error = capsys.readouterr().err
    assert ("cover only 8 % of the pool" in error and "more than 0.25" in error) == warned
