"""Store scored rows in a score log, with one Parquet file per finished shard, for selecting to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from topb_scorer.scoring.scored_rows import ScoredRows
from topb_scorer.scoring.shard_log import ROW_COLUMNS, ShardLog, row_arrays, row_fields

_NUMBERS = {
    "score": pa.float32(),
    "entropy": pa.float64(),
    "margin": pa.float64(),
    "confidence": pa.float32(),
    "predicted_class": pa.int32(),
}
_NAMES = ("id", "digest", *_NUMBERS, "skip_reason", "skip_detail")
SCHEMA = pa.schema([(name, (ROW_COLUMNS | _NUMBERS)[name]) for name in _NAMES])
"""The columns of a score log."""


class ScoreLog(ShardLog):
    """The scores of a model, with one file for each shard."""

    kind = "score log"
    # Version 1 had no digests, and images of some modes were black.
    version = 2

    def commit(self, identity: str, parts: Sequence[ScoredRows]) -> None:
        """Write the rows of one shard. If the log is durable, they survive a crash after this call returns.

        Raises:
            OSError: the directory cannot be written to.
        """
        table = pa.Table.from_batches([_record_batch(part) for part in parts], SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        with self._committing(identity, "shard scored") as path:
            path.write_bytes(sink.getvalue())

    def read(self, identities: Iterable[str]) -> Iterator[ScoredRows]:
        """Yield the rows of committed shards, one shard at a time.

        Raises:
            AlteredShardError: a shard is missing, incomplete or altered.
        """
        for identity in identities:
            with self._reading(identity) as file:
                # Logs of earlier releases may have further columns. One thread keeps the order of the rows.
                table = file.read(_NAMES, use_threads=False)
            numbers = {name: table.column(name).fill_null(0).to_numpy() for name in _NUMBERS}
            yield ScoredRows(**row_fields(table), **numbers)


def _record_batch(rows: ScoredRows) -> pa.RecordBatch:
    skipped = np.zeros(len(rows.ids), bool)
    skipped[list(rows.skips)] = True
    columns = row_arrays(rows.ids, rows.digests, rows.skips)
    columns |= {name: pa.array(getattr(rows, name), kind, mask=skipped) for name, kind in _NUMBERS.items()}
    return pa.record_batch([columns[name] for name in _NAMES], schema=SCHEMA)
