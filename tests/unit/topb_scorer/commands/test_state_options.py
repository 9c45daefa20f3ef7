"""What all commands on the state of servers refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command_line import topb

pytestmark = pytest.mark.scorer

PRUNING = ["scores prune", "results prune --older-than 1"]


@pytest.mark.parametrize("command", ["scores list", "scores verify", *PRUNING])
def test_a_missing_state_directory_is_an_error_and_is_not_created(tmp_path: Path, command: str) -> None:
    outcome = topb(*command.split(), "--state", tmp_path / "state")
    assert outcome.exit_code == 1
    assert "[STATE_NOT_FOUND]" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", PRUNING)
def test_nothing_is_pruned_without_a_catalog(tmp_path: Path, command: str) -> None:
    """The servers may use another catalog, which knows the open selections."""
    outcome = topb(*command.split(), "--state", tmp_path)
    assert outcome.exit_code == 1
    assert "[CATALOG_NOT_FOUND]" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", ["-1", "nan", "x"])
@pytest.mark.parametrize("command", ["scores", "results"])
def test_an_invalid_number_of_days_is_refused(tmp_path: Path, command: str, days: str) -> None:
    outcome = topb(command, "prune", "--state", tmp_path, "--older-than", days)
    assert outcome.exit_code == 2
    assert "'--older-than'" in outcome.err
