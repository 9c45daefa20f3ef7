"""Store each result in a Parquet file. Its rows are the picks; its metadata holds the rest of the result."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from topb.results import Accounts, Pick, SelectionResult, SkippedRow
from topb_scorer.durable import publish_file
from topb_scorer.errors import NotFoundError, ScorerError, is_storage_fault
from topb_scorer.jobs.selection_files import SelectionFiles

_log = logging.getLogger(__name__)

_METADATA_KEY = b"topb.result"
_ROW_GROUP = 10_000
# Callers with gRPC's default settings take messages of up to 4 MiB.
_PAGE_BYTES = 2**20
_SUMMARY_FIELDS = ("model", "strategy", "seed", "budget", "elapsed_seconds", "measures")
# Raised for a file that is no Parquet file, or whose contents were altered or written by another version.
_MALFORMED = (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError)


class ResultStore(SelectionFiles):
    """A directory of results."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, ".parquet")

    def write(self, selection: str, result: SelectionResult) -> None:
        """Store the result of a selection durably."""
        about = {name: value for name, value in result.to_dict().items() if name != "picks"}
        about["pick_count"] = len(result.picks)
        table = result.to_arrow().replace_schema_metadata({_METADATA_KEY: json.dumps(about)})
        publish_file(
            self.path(selection),
            lambda path: pq.write_table(table, path, row_group_size=_ROW_GROUP, compression="zstd"),
        )

    def read_summary(self, selection: str) -> tuple[SelectionResult, int]:
        """Return the result of a selection without its picks, and the number of picks.

        Raises:
            NotFoundError: the selection has no result.
            ScorerError: the result cannot be read, with reason RESULT_UNREADABLE.
        """
        with self._opened(selection) as file:
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
        """Return the picks with ranks `start + 1` to `start + count`.

        There are fewer at the end of the result, and if their ids would take more than about 1 MiB.

        Raises:
            NotFoundError: the selection has no result.
            ScorerError: the result cannot be read, with reason RESULT_UNREADABLE.
        """
        with self._opened(selection) as file:
            groups = range(start // _ROW_GROUP, min(-(-(start + count) // _ROW_GROUP), file.num_row_groups))
            if not groups:
                return []
            table = file.read_row_groups(list(groups), use_threads=False)
            rows = table.slice(start - groups.start * _ROW_GROUP, count)
            sizes = np.cumsum(pc.binary_length(rows["id"]).to_numpy(), dtype=np.int64)
            fitting = max(1, int(np.searchsorted(sizes, _PAGE_BYTES, side="right")))
            return [Pick(**row) for row in rows.slice(0, fitting).to_pylist()]

    @contextmanager
    def _opened(self, selection: str) -> Iterator[pq.ParquetFile]:
        """Open a result. What its contents raise while they are read is raised as one of topb's errors."""
        try:
            with pq.ParquetFile(self.path(selection)) as file:
                yield file
        except FileNotFoundError as error:
            raise NotFoundError(
                f"there is no result of selection {selection}; `topb results prune` may have removed it",
                reason="RESULT_NOT_FOUND",
                selection=selection,
            ) from error
        except _MALFORMED as error:
            if is_storage_fault(error):
                raise
            # The library's words may name the path, which is not for callers.
            _log.error("%s cannot be read: %s", self.path(selection), error)
            raise ScorerError(
                f"the result of selection {selection} is damaged, or another version of topb wrote it; "
                "repeat the request with a new request id, which uses the scores that are kept",
                reason="RESULT_UNREADABLE",
                selection=selection,
            ) from error
