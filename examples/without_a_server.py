"""Select in this process, without a server.

    python examples/without_a_server.py bundles/0123456789abcdef /data/pool.parquet 100

This needs the scorer: pip install 'topb[scorer]'. The picks are the same as those of a server with the same
bundle, pool, strategy and seed.
"""

import sys

from topb_scorer.in_process import select_batch


def main(bundle: str, pool: str, budget: int) -> None:
    result = select_batch(pool, budget, bundle=bundle, strategy="margin")
    for pick in result.picks:
        print(pick.rank, pick.id, f"{pick.score:.4f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
