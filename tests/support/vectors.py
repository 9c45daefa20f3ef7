"""Write pools of vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from topb_scorer.pools import OpenPool
from topb_scorer.pools.vectors import VectorRows, VectorShard


def random_vectors(count: int, width: int = 8, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def random_probabilities(count: int, classes: int = 4, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), count).astype(np.float32)


def fixed_lists(values: NDArray[np.floating]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def write_vectors(
    path: Path,
    vectors: NDArray[np.floating],
    probabilities: NDArray[np.floating] | None = None,
    *,
    row_group: int = 64,
    names: list[str] | None = None,
) -> Path:
    """Write a Parquet file, by default with ids `row-0`, `row-1`, …"""
    columns = {"id": names or ids(len(vectors)), "embedding": fixed_lists(vectors)}
    if probabilities is not None:
        columns["probabilities"] = fixed_lists(probabilities)
    pq.write_table(pa.table(columns), path, row_group_size=row_group)
    return path


def ids(count: int, prefix: str = "row") -> list[str]:
    return [f"{prefix}-{row}" for row in range(count)]


def blocks(pool: OpenPool, *, with_probabilities: bool = True) -> list[VectorRows]:
    """Return all blocks of a pool of vectors."""
    found = []
    for shard in pool.shards:
        assert isinstance(shard, VectorShard)
        of_shard = list(shard.blocks(with_probabilities=with_probabilities))
        assert sum(len(block.ids) for block in of_shard) == shard.rows
        found += of_shard
    return found


def faults(pool: OpenPool) -> dict[str, str]:
    """Return the reason of each row that is skipped, by id."""
    return {block.ids[row]: fault.reason for block in blocks(pool) for row, fault in block.faults.items()}
