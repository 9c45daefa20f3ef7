"""Ask a server to select from a pool that it reads, and print the picks.

python examples/select_from_a_pool.py 127.0.0.1:50051 /data/pool.parquet 100
"""

import sys

import topb


def main(address: str, pool: str, budget: int) -> None:
    with topb.Client(address) as client:
        result = client.select_batch(pool, budget, strategy="aalu")

    for pick in result.picks:
        print(f"{pick.rank:>5}  {pick.score:.4f}  {pick.id}")

    # Every row of the pool is exactly one of scored, skipped, duplicate and excluded.
    accounts = result.accounts
    print(f"read {accounts.read}, scored {accounts.scored}, skipped {dict(accounts.skipped)}")
    if result.fell_short:
        print(f"the pool holds only {len(result.picks)} images that can be ranked")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
