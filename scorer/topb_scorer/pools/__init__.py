"""Pools of unlabelled images. A pool is a list of shards, and a shard yields items, one per image."""

from topb_scorer.pools.exclusions import read_exclusion
from topb_scorer.pools.opening import open_pool
from topb_scorer.pools.pool import OpenPool, PoolItem, Shard, Unreadable, content_digest
from topb_scorer.pools.storage import AllowedRoots

__all__ = [
    "AllowedRoots",
    "OpenPool",
    "PoolItem",
    "Shard",
    "Unreadable",
    "content_digest",
    "open_pool",
    "read_exclusion",
]
