"""A directory of records: written by one process, and refused if it is damaged or of other settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from topb_trainer.errors import ConfigurationError, InvalidDataError
from topb_trainer.experiment.records import Record, Settings, open_records, writing_records

SETTINGS = Settings({"data": {"name": "digits"}, "train": {"task": {"epochs": 2}}})
RECORD = Record("random", 0, 0, 2, 0.1, 0.5, "", [], "", None, SETTINGS.sha256, {})


def test_two_experiments_do_not_run_in_one_directory(tmp_path: Path) -> None:
    with (
        writing_records(tmp_path, SETTINGS),
        pytest.raises(ConfigurationError, match="another process is running an experiment") as caught,
        writing_records(tmp_path, SETTINGS),
    ):
        pass
    assert caught.value.reason == "EXPERIMENT_RUNNING"


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    with writing_records(tmp_path, SETTINGS):
        pass
    other = Settings({"data": {"name": "digits"}, "train": {"task": {"epochs": 9}}})
    with (
        pytest.raises(ConfigurationError, match=r"train\.task\.epochs was 2 and is now 9") as caught,
        writing_records(tmp_path, other),
    ):
        pass
    assert caught.value.reason == "EXPERIMENT_SETTINGS"


@pytest.mark.parametrize(
    ("content", "match", "reason"),
    [
        ({"settings_sha256": "another"}, "recorded with other settings", "RECORD_SETTINGS"),
        (None, "is not a record", "RECORD_UNREADABLE"),
        ({"seed": 1}, "round-0.json holds the record of random with seed 1 in round 0", "RECORD_MISPLACED"),
        ({"method": "aalu"}, "holds the record of aalu with seed 0", "RECORD_MISPLACED"),
    ],
)
def test_a_damaged_or_foreign_record_is_an_error(
    content: dict[str, object] | None, match: str, reason: str, tmp_path: Path
) -> None:
    with writing_records(tmp_path, SETTINGS) as store:
        store.publish(RECORD)
        assert store.read("random", 0, 0) == RECORD
        assert store.read("random", 0, 1) is None
        (file,) = tmp_path.glob("records/*/*/*.json")
        file.write_text("{" if content is None else json.dumps(json.loads(file.read_text()) | content))
        with pytest.raises(InvalidDataError, match=match) as caught:
            store.records()
    assert caught.value.reason == reason


def test_a_missing_or_altered_experiment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match="holds no experiment") as caught:
        open_records(tmp_path / "nowhere")
    assert caught.value.reason == "EXPERIMENT_NOT_FOUND"
    with writing_records(tmp_path, SETTINGS):
        pass
    file = tmp_path / "experiment.json"
    file.write_text(file.read_text().replace("digits", "letters"))
    with pytest.raises(InvalidDataError, match="was altered") as caught:
        open_records(tmp_path)
    assert caught.value.reason == "EXPERIMENT_UNREADABLE"


def test_what_a_killed_run_was_writing_is_removed_by_the_next(tmp_path: Path) -> None:
    with writing_records(tmp_path, SETTINGS) as store:
        store.publish(RECORD)
    bundle = tmp_path / ".unpublished-1" / ".unpublished-2"
    bundle.mkdir(parents=True)
    for file in (bundle / "encoder.onnx", tmp_path / "records" / "random" / "seed-0" / ".unpublished-3.json"):
        file.write_bytes(b"torn")
    with writing_records(tmp_path, SETTINGS) as store:
        assert store.records() == [RECORD]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".unpublished")]
