"""Run several strategies at once in an event loop, and count how many picks they share.

    python examples/compare_strategies.py 127.0.0.1:50051 /data/pool.parquet 100

These strategies are pointwise, so they share the scores of the model. If one of them has scored a shard, the
others find it in the score log.
"""

import asyncio
import sys
from itertools import combinations

import topb

STRATEGIES = ("aalu", "entropy", "margin", "random")


async def main(address: str, pool: str, budget: int) -> None:
    async with topb.AsyncClient(address) as client:
        results = await asyncio.gather(
            *(client.select_batch(pool, budget, strategy=strategy) for strategy in STRATEGIES)
        )
    picks = {result.strategy: set(result.ids) for result in results}
    for first, second in combinations(STRATEGIES, 2):
        print(f"{first:>8} and {second:<8} share {len(picks[first] & picks[second])} of {budget} picks")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
