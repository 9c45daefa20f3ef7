from __future__ import annotations

from pathlib import Path

import pytest

from topb_scorer.errors import NewerVersionError, NotFoundError
from topb_scorer.jobs.state_directory import StateDirectory, check_state, existing_catalog

pytestmark = pytest.mark.scorer


def test_a_state_directory_without_a_version_is_read_as_version_1(tmp_path: Path) -> None:
    StateDirectory.open(tmp_path / "state").catalog.close()
    version = tmp_path / "state" / "version"
    assert version.read_text() == "1\n"
    version.unlink()
    check_state(tmp_path / "state")
    StateDirectory.open(tmp_path / "state").catalog.close()
    assert version.read_text() == "1\n"


@pytest.mark.parametrize("version", ["2\n", "1.5", "", "\udcff"])
def test_a_state_directory_of_a_newer_version_is_refused_and_left_alone(version: str, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(version, errors="surrogateescape")
    for attempt in (StateDirectory.open, check_state):
        with pytest.raises(NewerVersionError) as caught:
            attempt(tmp_path)
        assert caught.value.reason == "STATE_VERSION"
    assert [path.name for path in tmp_path.iterdir()] == ["version"]


def test_commands_create_neither_a_state_directory_nor_a_catalog(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        check_state(tmp_path / "state")
    assert caught.value.reason == "STATE_NOT_FOUND"
    with pytest.raises(NotFoundError) as caught:
        existing_catalog(tmp_path, "")
    assert caught.value.reason == "CATALOG_NOT_FOUND"
    assert list(tmp_path.iterdir()) == []
