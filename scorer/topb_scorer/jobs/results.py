"""Store each result in a Parquet file. Its rows are the picks; its metadata holds the rest of the result."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from topb.results import Accounts, Pick, SelectionResult, SkippedRow
from topb_scorer.durable import is_unpublished, publish_file
from topb_scorer.errors import NotFoundError

_METADATA_KEY = b"topb.result"
_ROW_GROUP = 10_000
_SUMMARY_FIELDS = ("model", "strategy", "seed", "budget", "elapsed_seconds", "measures")


class ResultStore:
    """A directory of results."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, selection: str, result: SelectionResult) -> None:
        """Store the result of a selection durably."""
        about = {name: value for name, value in result.to_dict().items() if name != "picks"}
        about["pick_count"] = len(result.picks)
        table = result.to_arrow().replace_schema_metadata({_METADATA_KEY: json.dumps(about)})
        publish_file(
            self._path(selection),
            lambda path: pq.write_table(table, path, row_group_size=_ROW_GROUP, compression="zstd"),
        )

    def read_summary(self, selection: str) -> tuple[SelectionResult, int]:
        """Return the result of a selection without its picks, and the number of picks.

        Raises:
            NotFoundError: the selection has no result.
        """
        with self._open(selection) as file:
            about = json.loads(file.schema_arrow.metadata[_METADATA_KEY])
        accounts = about["accounts"]
        examples = tuple(SkippedRow(**row) for row in accounts["skipped_examples"])
        result = SelectionResult(
            picks=(),
            accounts=Accounts(**{**accounts, "skipped_examples": examples}),
            **{name: about[name] for name in _SUMMARY_FIELDS},
        )
        return result, about["pick_count"]

    def read_picks(self, selection: str, start: int, count: int) -> list[Pick]:
        """Return the picks with ranks `start + 1` to `start + count`, or fewer at the end of the result.

        Raises:
            NotFoundError: the selection has no result.
        """
        with self._open(selection) as file:
            groups = range(start // _ROW_GROUP, min(-(-(start + count) // _ROW_GROUP), file.num_row_groups))
            if not groups:
                return []
            table = file.read_row_groups(list(groups), use_threads=False)
            rows = table.slice(start - groups.start * _ROW_GROUP, count).to_pylist()
            return [Pick(**row) for row in rows]

    def size(self, selection: str) -> int:
        """Return the size of a result in bytes, or 0 if there is none."""
        try:
            return self._path(selection).stat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, selection: str) -> None:
        """Remove the result of a selection, if there is one."""
        self._path(selection).unlink(missing_ok=True)

    def written_before(self, moment: float) -> list[str]:
        """Return the ids of selections whose results were written before `moment`, in epoch seconds."""
        files = (path for path in self._directory.glob("*.parquet") if not is_unpublished(path))
        return sorted(path.stem for path in files if path.stat().st_mtime < moment)

    def _open(self, selection: str) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._path(selection))
        except FileNotFoundError as error:
            raise NotFoundError(
                f"there is no result of selection {selection}; `topb results prune` may have removed it",
                reason="RESULT_NOT_FOUND",
                selection=selection,
            ) from error

    def _path(self, selection: str) -> Path:
        return self._directory / f"{selection}.parquet"
