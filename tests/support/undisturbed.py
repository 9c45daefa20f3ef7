"""A pool whose selections are disturbed, and what an undisturbed one gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from support.raw_selections import PoolCaller, RawResult, StreamCaller, chunks_of, pool_request
from topb.v1 import selection_pb2 as pb

SHARD_ROWS = 24
SHARDS = 5
# A lease that a dead server keeps for half a second, and a batch that spreads the kills over many of them.
OPTIONS = ("--lease-seconds=0.5", "--batch-size=8")


@dataclass(frozen=True)
class Data:
    """Models, a pool with rows of every account, and what an undisturbed selection from it gives."""

    folder: Path
    rows: list[tuple[str, bytes]] = field(repr=False)
    spec: pb.SelectionSpec
    undisturbed: RawResult = field(repr=False)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def pool(self) -> Path:
        return self.folder / "pool.parquet"

    def caller(self, path: str, request_id: str) -> PoolCaller | StreamCaller:
        """Who asks for the selection, on the server-read path or the streamed one."""
        if path == "read":
            return PoolCaller(pool_request(self.pool, request_id, spec=self.spec))
        start = pb.StreamStart(spec=self.spec, request_id=request_id)
        return StreamCaller(start, chunks_of(self.rows, SHARD_ROWS))

    def check(self, result: RawResult) -> None:
        """The result is that of an undisturbed selection, byte by byte."""
        result.check_accounts(len(self.rows))
        assert result.content == self.undisturbed.content
