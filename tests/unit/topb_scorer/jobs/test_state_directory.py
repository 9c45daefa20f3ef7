from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from topb_scorer import durable
from topb_scorer.errors import NewerVersionError, NotFoundError
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.requests import LARGE_REQUEST
from topb_scorer.jobs.state_directory import LAYOUT_VERSION, StateDirectory, check_state, existing_catalog

pytestmark = pytest.mark.scorer


def test_a_state_directory_without_a_version_is_read_as_version_1(tmp_path: Path) -> None:
    StateDirectory.open(tmp_path / "state").catalog.close()
    version = tmp_path / "state" / "version"
    assert version.read_text() == f"{LAYOUT_VERSION}\n"
    version.unlink()
    check_state(tmp_path / "state")
    StateDirectory.open(tmp_path / "state").catalog.close()
    assert version.read_text() == f"{LAYOUT_VERSION}\n"


def test_an_older_state_directory_is_upgraded(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("1\n")
    StateDirectory.open(tmp_path).catalog.close()
    assert (tmp_path / "version").read_text() == f"{LAYOUT_VERSION}\n"


@pytest.mark.parametrize("version", [f"{LAYOUT_VERSION + 1}\n", "1.5", "", "\udcff"])
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


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    state = StateDirectory.open(tmp_path / "state")
    yield state
    state.catalog.close()


def created(state: StateDirectory, request: bytes) -> SelectionRecord:
    return state.create(NewSelection("one", "m", "margin", 3, "/pool", False, request))


@pytest.mark.parametrize(("size", "files"), [(1, 0), (LARGE_REQUEST, 0), (LARGE_REQUEST + 1, 1)])
def test_a_large_request_is_in_a_file_and_not_in_the_catalog(
    size: int, files: int, state: StateDirectory
) -> None:
    request = bytes(size)
    record = created(state, request)
    assert state.request_of(record) == request
    assert state.catalog.request(record.id) == (b"" if files else request)
    assert created(state, request) == record
    assert len(list((state.path / "requests").glob("*"))) == files


def test_a_large_request_is_durable_before_the_catalog_names_it(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(durable, "on_step", lambda name, _: steps.append(name))
    created(state, bytes(LARGE_REQUEST + 1))
    assert steps[-4:] == ["file renamed", "directory synced", "before create", "after create"]


@pytest.mark.parametrize("content", [None, b"", b"altered"])
def test_a_large_request_that_is_lost_or_altered_is_an_error(
    content: bytes | None, state: StateDirectory
) -> None:
    record = created(state, bytes(LARGE_REQUEST + 1))
    (file,) = (state.path / "requests").glob("*")
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(NotFoundError, match=record.id) as caught:
        state.request_of(record)
    assert caught.value.reason == "REQUEST_LOST"
