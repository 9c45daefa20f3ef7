"""A pool for selections that are disturbed, and the result of an undisturbed one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from support.raw_selections import PoolCaller, RawResult, StreamCaller, chunks_of, pool_request
from topb.v1 import selection_pb2 as pb
from topb_scorer.durable import is_unpublished

SHARD_ROWS = 24
SHARDS = 5
# The lease of a dead server ends after half a second, and small batches spread the kills over many batches.
# Features of pools that servers read are kept, so that kills hit their commits as well.
OPTIONS = ("--lease-seconds=0.5", "--batch-size=8", "--keep-features=always")


@dataclass(frozen=True)
class Data:
    """Models, a pool with rows for every account, and the result of an undisturbed selection from it."""

    folder: Path
    rows: list[tuple[str, bytes]] = field(repr=False)
    spec: pb.SelectionSpec
    undisturbed: RawResult = field(repr=False)

    @property
    def pool(self) -> Path:
        return self.folder / "pool.parquet"

    def caller(self, path: str, request_id: str) -> PoolCaller | StreamCaller:
        """Return a caller that lets the server read the pool (`path` "read") or streams it ("streamed")."""
        if path == "read":
            return PoolCaller(pool_request(self.pool, request_id, spec=self.spec))
        start = pb.StreamStart(spec=self.spec, request_id=request_id)
        return StreamCaller(start, chunks_of(self.rows, SHARD_ROWS))

    def check(self, result: RawResult) -> None:
        """Assert that the result equals the result of an undisturbed selection, byte by byte."""
        result.check_accounts(len(self.rows))
        assert result.content == self.undisturbed.content


def committed(state: Path, kind: str = "scores") -> Counter[str]:
    """Return the number of files of each shard in the score logs (or feature logs) of a state directory."""
    files = [*state.glob(f"{kind}/*/*/*.parquet")]
    if kind == "scores":
        files += state.glob("streams/*/*/*.parquet")
    return Counter(file.name.rpartition("-")[0] for file in files if not is_unpublished(file))
