"""Results of selections that succeeded: one Parquet file each, the picks as rows, the rest as metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from topb.results import Accounts, Pick, SelectionResult, SkippedRow
from topb_scorer.durable import is_unpublished, publish_file
from topb_scorer.errors import NotFoundError

_METADATA_KEY = b"topb.result"
_ROW_GROUP = 10_000


class ResultStore:
    """A directory of results by selection id."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, selection: str, result: SelectionResult) -> None:
        """Publishes the result; from here on it survives a crash."""
        about = {name: value for name, value in result.to_dict().items() if name != "picks"}
        about["pick_count"] = len(result.picks)
        table = result.to_arrow().replace_schema_metadata({_METADATA_KEY: json.dumps(about)})
        publish_file(
            self._path(selection),
            lambda path: pq.write_table(table, path, row_group_size=_ROW_GROUP, compression="zstd"),
        )

    def read(self, selection: str) -> SelectionResult:
        """The whole result.

        Raises:
            NotFoundError: there is none.
        """
        with self._open(selection) as file:
            picks = tuple(_picks(file.read(use_threads=False)))
            return _result(_about(file), picks)

    def read_summary(self, selection: str) -> tuple[SelectionResult, int]:
        """The result without its picks, and how many those are.

        Raises:
            NotFoundError: there is none.
        """
        with self._open(selection) as file:
            about = _about(file)
            return _result(about, ()), int(about["pick_count"])

    def read_picks(self, selection: str, start: int, count: int) -> list[Pick]:
        """The picks of ranks `start + 1` to `start + count`, as far as there are any.

        Raises:
            NotFoundError: there is no such result.
        """
        with self._open(selection) as file:
            groups = range(start // _ROW_GROUP, min(-(-(start + count) // _ROW_GROUP), file.num_row_groups))
            if not groups:
                return []
            table = file.read_row_groups(list(groups), use_threads=False)
            return list(_picks(table.slice(start - groups.start * _ROW_GROUP, count)))

    def size(self, selection: str) -> int:
        """Bytes of the result on disk, 0 where there is none."""
        try:
            return self._path(selection).stat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, selection: str) -> None:
        """Removes the result, if there is one."""
        self._path(selection).unlink(missing_ok=True)

    def written_before(self, moment: float) -> list[str]:
        """The selections whose results were written before then, in seconds since the epoch, in order."""
        files = (path for path in self._directory.glob("*.parquet") if not is_unpublished(path))
        return sorted(path.stem for path in files if path.stat().st_mtime < moment)

    def _open(self, selection: str) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._path(selection))
        except FileNotFoundError as error:
            raise NotFoundError(
                f"the result of selection {selection} is gone", reason="RESULT_NOT_FOUND", selection=selection
            ) from error

    def _path(self, selection: str) -> Path:
        return self._directory / f"{selection}.parquet"


def _about(file: pq.ParquetFile) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(file.schema_arrow.metadata[_METADATA_KEY])
    return about


def _picks(table: pa.Table) -> Iterator[Pick]:
    for row in table.to_pylist():
        yield Pick(**row)


def _result(about: dict[str, Any], picks: tuple[Pick, ...]) -> SelectionResult:
    accounts = about["accounts"]
    examples = tuple(SkippedRow(**row) for row in accounts["skipped_examples"])
    return SelectionResult(
        picks=picks,
        accounts=Accounts(**{**accounts, "skipped_examples": examples}),
        model=about["model"],
        strategy=about["strategy"],
        seed=about["seed"],
        budget=about["budget"],
        elapsed_seconds=about["elapsed_seconds"],
        measures=about["measures"],
    )
