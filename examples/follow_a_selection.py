"""Submit a selection, watch it, and find it again by its request id.

    python examples/follow_a_selection.py 127.0.0.1:50051 /data/pool.parquet 100 round-3

If you run it again with the same arguments, it finds the selection of the first run and fetches its result.
If you stop it, the selection continues on the server.
"""

import sys
import time

import topb

RUNNING = {topb.SelectionState.PENDING, topb.SelectionState.RUNNING}


def main(address: str, pool: str, budget: int, request_id: str) -> None:
    with topb.Client(address) as client:
        handle = client.submit(pool, budget, request_id=request_id)
        print(f"selection {handle.id}")

        while (state := handle.state()) in RUNNING:
            progress = handle.progress()
            print(f"{state}: {progress.read} of {progress.total or '?'} rows")
            time.sleep(1)

        # `result` raises SelectionFailedError if the selection failed, with the server's reason.
        result = handle.result()
        print(f"{len(result.picks)} picks; the best is {result.picks[0].id}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
