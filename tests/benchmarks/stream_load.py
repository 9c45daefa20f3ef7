"""Measure what silent callers cost honest ones: how many finish, and how long they wait.

    PYTHONPATH=tests python tests/benchmarks/stream_load.py

A server with two slots is started twice. The first time, only honest callers call it. The second time, as
many silent callers as there are slots have come before: each starts a stream and then sends nothing. Honest
callers use the SDK with its default settings; every third has the server read a pool, and the others send
one.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

import topb
from support.bundles import write_bundle
from support.images import random_pool, write_parquet
from support.servers import running_server
from topb.v1 import selection_pb2 as pb
from topb.v1 import selection_pb2_grpc

SLOTS = 2


@dataclass(frozen=True)
class Outcome:
    """How one honest caller fared."""

    seconds: float
    error: str
    """Empty if the caller has its result."""


def main() -> None:
    """Print a table with a row for each load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=30, help="honest callers at once")
    parser.add_argument("--rows", type=int, default=300, help="rows of each pool")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds until a caller gives up")
    parser.add_argument(
        "--server-option", action="append", default=[], help="option of topb serve; repeatable"
    )
    options = parser.parse_args()
    print("| silent callers | finished | median s | last s | errors |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_bundle(data / "models")
        write_parquet(data / "pool.parquet", random_pool(options.rows))
        for silent in (0, SLOTS):
            outcomes = _under_load(data, silent, options)
            finished = [outcome.seconds for outcome in outcomes if not outcome.error]
            errors = sorted({outcome.error for outcome in outcomes if outcome.error})
            median = f"{np.median(finished):.1f}" if finished else "–"
            last = f"{max(outcome.seconds for outcome in outcomes):.1f}"
            print(
                f"| {silent} | {len(finished)} of {len(outcomes)} | {median} | {last} | {', '.join(errors)} |"
            )


def _under_load(data: Path, silent: int, options: argparse.Namespace) -> list[Outcome]:
    rows = list(random_pool(options.rows))
    with ExitStack() as stack:
        arguments = (f"--max-concurrent-selections={SLOTS}", *options.server_option)
        address = stack.enter_context(running_server(data / "models", data, options=arguments)).address
        released = threading.Event()
        for _ in range(silent):
            channel = stack.enter_context(grpc.insecure_channel(address))
            stub = selection_pb2_grpc.SelectionServiceStub(channel)
            call = stub.SelectBatchFromStream(_start_only(released))
            stack.callback(call.cancel)
            next(call)
        stack.callback(released.set)

        def select(number: int) -> Outcome:
            started, error = time.monotonic(), ""
            pool = data / "pool.parquet" if number % 3 == 0 else rows
            try:
                with topb.Client(address, timeout=options.timeout) as client:
                    client.select_batch(pool, 10, seed=number)
            except topb.TopbError as failure:
                error = failure.reason
            return Outcome(time.monotonic() - started, error)

        with ThreadPoolExecutor(options.callers) as threads:
            return list(threads.map(select, range(options.callers)))


def _start_only(released: threading.Event) -> Iterator[pb.SelectBatchFromStreamRequest]:
    spec = pb.SelectionSpec(budget=10)
    yield pb.SelectBatchFromStreamRequest(start=pb.StreamStart(spec=spec))
    released.wait()


if __name__ == "__main__":
    main()
