"""The records of an experiment: one durable JSON file for each finished round of a method and seed.

experiment.json                            the settings and their digest
records/<method>/seed-<seed>/round-<r>.json
initial/seed-<seed>.pt                     T of the first round, shared by all methods

A report keeps the records of which it was made in one file, records.jsonl, beside experiment.json.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from topb_scorer.durable import is_unpublished, make_directory, publish_file
from topb_trainer.errors import ConfigurationError, InvalidDataError

SCHEMA_VERSION = 1

_EXPERIMENT = "experiment.json"
_RECORDS = "records"
_KEPT_RECORDS = "records.jsonl"
_INITIAL = "initial"
_LOCK = ".lock"


@dataclass(frozen=True)
class Record:
    """One round of one method and seed."""

    method: str
    seed: int
    round: int
    """0 for the round trained on the initial labelled set."""
    labelled: int
    """Number of images that T was trained on."""
    share: float
    """Share of the training set that is labelled."""
    accuracy: float
    """Accuracy of T on the test set."""
    labelled_sha256: str
    """Digest of the labelled ids, sorted."""
    picked: Sequence[int]
    """Rows of the training set picked for the next round, in rank order; empty in the last round."""
    picked_sha256: str
    """Digest of the picked ids, in rank order."""
    model_id: str | None
    """Model id of the bundle with which they were picked; None in the last round."""
    settings_sha256: str
    """Digest of the experiment's settings."""
    seconds: Mapping[str, float]
    """Seconds by part: task, test, labelled_features, selector, export, select."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Versions of the libraries by name; empty in records that were made before they were kept."""

    @property
    def key(self) -> tuple[str, int, int]:
        """Method, seed and round, of which there is one record."""
        return (self.method, self.seed, self.round)


@dataclass(frozen=True)
class Settings:
    """The settings that determine the results of an experiment."""

    values: Mapping[str, Any]
    """Nested JSON values: data set, protocol and training."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the values as JSON with sorted keys."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()


class RecordStore:
    """The directory of an experiment's records."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings

    def initial(self, seed: int) -> Path:
        """Return the path of the file that holds the first round's T for a seed."""
        return self.path / _INITIAL / f"seed-{seed}.pt"

    def read(self, method: str, seed: int, round_index: int) -> Record | None:
        """Return the record of a round, or None if the round is not finished.

        Raises:
            InvalidDataError: the file is not a record, or it belongs to another round or to other settings.
        """
        file = self.file(method, seed, round_index)
        return self._read_record(file) if file.exists() else None

    def publish(self, record: Record) -> None:
        """Write a record durably. After a crash at any moment, the file is either complete or absent."""
        file = self.file(*record.key)
        _publish_text(file, _record_text(record))

    def records(self) -> list[Record]:
        """Return all records, ordered by method, seed and round.

        Raises:
            InvalidDataError: see `read`.
        """
        files = (self.path / _RECORDS).glob("*/seed-*/round-*.json")
        found = [self._read_record(file) for file in files if not is_unpublished(file)]
        kept = self.path / _KEPT_RECORDS
        if kept.exists():
            lines = kept.read_text(encoding="utf-8").splitlines()
            found += [self._record_of(line, f"line {at} of {kept}") for at, line in enumerate(lines, 1)]
        return sorted(found, key=lambda record: record.key)

    def file(self, method: str, seed: int, round_index: int) -> Path:
        """Return the path of a record."""
        return self.path / _RECORDS / method / f"seed-{seed}" / f"round-{round_index}.json"

    def _read_record(self, file: Path) -> Record:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise _unreadable(str(file), error) from error
        record = self._record_of(text, str(file))
        if self.file(*record.key) != file:
            raise InvalidDataError(
                f"{file} holds the record of {record.method} with seed {record.seed} in round "
                f"{record.round}; delete the file and run the experiment again to repeat its round",
                reason="RECORD_MISPLACED",
            )
        return record

    def _record_of(self, text: str, place: str) -> Record:
        try:
            record = Record(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise _unreadable(place, error) from error
        if record.settings_sha256 != self.settings.sha256:
            raise InvalidDataError(
                f"{place} was recorded with other settings than those of its experiment",
                reason="RECORD_SETTINGS",
            )
        return record


@contextmanager
def writing_records(path: Path, settings: Settings) -> Iterator[RecordStore]:
    """Open a directory exclusively for writing records. It may be new, or hold records of the same settings.

    Raises:
        ConfigurationError: another process writes there, or the directory holds an experiment with other
            settings, or a report.
    """
    make_directory(path)
    with (path / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"another process is running an experiment in {path}; wait until it ends, or choose another "
                "--out",
                reason="EXPERIMENT_RUNNING",
            ) from error
        _remove_unpublished(path)
        if (path / _KEPT_RECORDS).exists():
            raise ConfigurationError(
                f"{path} holds a report, whose records cannot be continued; choose another --out",
                reason="EXPERIMENT_IS_REPORT",
            )
        if (path / _EXPERIMENT).exists():
            _require_same(path, open_records(path).settings, settings)
        else:
            _publish_text(path / _EXPERIMENT, _experiment_text(settings))
        yield RecordStore(path, settings)


def keep_records(path: Path, settings: Settings, records: Sequence[Record]) -> None:
    """Write settings and records into the directory of a report, from which `open_records` reads them.

    Raises:
        ConfigurationError: the directory holds an experiment, which would be overwritten.
    """
    if (path / _RECORDS).exists():
        raise ConfigurationError(
            f"{path} holds an experiment; choose another --out for the report", reason="OUT_UNUSABLE"
        )
    _publish_text(path / _EXPERIMENT, _experiment_text(settings))
    _publish_text(path / _KEPT_RECORDS, "".join(map(_record_text, records)))


def open_records(path: Path) -> RecordStore:
    """Open a directory of records for reading.

    Raises:
        InvalidDataError: the directory holds no experiment, or one of another layout.
    """
    file = path / _EXPERIMENT
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        settings = Settings(content["settings"])
        version = content["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDataError(
            f"{path} holds no experiment: {file.name} cannot be read ({error})", reason="EXPERIMENT_NOT_FOUND"
        ) from error
    if version != SCHEMA_VERSION or content.get("sha256") != settings.sha256:
        raise InvalidDataError(
            f"{file} has layout {version} or was altered; expected layout {SCHEMA_VERSION} and settings that "
            "match the digest in the file",
            reason="EXPERIMENT_UNREADABLE",
        )
    return RecordStore(path, settings)


def _experiment_text(settings: Settings) -> str:
    content = {"schema_version": SCHEMA_VERSION, "sha256": settings.sha256, "settings": settings.values}
    return json.dumps(content, indent=1) + "\n"


def _record_text(record: Record) -> str:
    return json.dumps(asdict(record)) + "\n"


def _publish_text(file: Path, text: str) -> None:
    publish_file(file, lambda path: path.write_text(text, encoding="utf-8"))


def _unreadable(place: str, error: Exception) -> InvalidDataError:
    return InvalidDataError(
        f"{place} is not a record: {error}; delete it and run the experiment again to repeat its round",
        reason="RECORD_UNREADABLE",
    )


def _require_same(path: Path, recorded: Settings, requested: Settings) -> None:
    before, now = _flat(recorded.values), _flat(requested.values)
    differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if differing:
        shown = "; ".join(
            f"{name} was {before.get(name)} and is now {now.get(name)}" for name in differing[:5]
        )
        raise ConfigurationError(
            f"{path} holds an experiment with other settings: {shown}{'; …' if len(differing) > 5 else ''}. "
            "Use its settings to resume it, or choose another --out",
            reason="EXPERIMENT_SETTINGS",
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _remove_unpublished(path: Path) -> None:
    """Remove the files and the bundles that a killed run was writing."""
    for found in [found for found in path.rglob("*") if is_unpublished(found)]:
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink(missing_ok=True)
