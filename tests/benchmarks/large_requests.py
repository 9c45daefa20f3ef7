"""Measure what large requests cost a server: memory and time of lists and polls, and the size of the catalog.

    python tests/benchmarks/large_requests.py --out docs/results/large_requests.json

Twelve detached selections exclude 2,500,000 ids each, almost as many as fit into a request. When all have
ended, the selections are listed and one of them is polled. The same is done with requests that exclude
nothing. The resident memory of the server is read before the calls, and its peak is read after them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from measuring import argument_parser, machine, seconds, write_json

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.bundles import write_bundle
from support.images import random_pool, write_parquet
from support.servers import running_server
from support.waiting import once
from topb.v1 import selection_pb2, selection_pb2_grpc

LISTS = 5
POLLS = 20


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--ids", type=int, default=2_500_000, help="excluded ids in each large request")
    parser.add_argument("--out", type=Path, help="where to write the JSON; default: standard output")
    arguments = parser.parse_args()
    small = measure(arguments, ids=0)
    large = measure(arguments, ids=arguments.ids)
    results = {"machine": machine(), "requests": arguments.requests, "small": small, "large": large}
    write_json(arguments.out, results)


def measure(arguments: argparse.Namespace, *, ids: int) -> dict[str, object]:
    """Return the measurements for requests that exclude `ids` ids each."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_bundle(folder / "models")
        pool = write_parquet(folder / "pool.parquet", random_pool(10))
        options = ("--state", str(folder / "state"), "--max-concurrent-selections", "1")
        with running_server(folder / "models", folder, options=options) as server:
            pid = server.process.pid
            with grpc.insecure_channel(server.address) as channel:
                submitted = [
                    submit(channel, request) for request in requests_of(arguments.requests, ids, pool)
                ]
                stub = selection_pb2_grpc.SelectionServiceStub(channel)
                every = selection_pb2.ListSelectionsRequest()
                each = [selection_pb2.GetSelectionRequest(selection=id_) for id_ in submitted]
                for request in each:
                    once(lambda request=request: has_succeeded(stub, request), seconds=300)  # type: ignore[misc]
                time.sleep(2)
                submitting_peak = memory(pid, "VmHWM")
                reset_peak(pid)
                before = memory(pid, "VmRSS")
                lists = [seconds(lambda: stub.ListSelections(every)) for _ in range(LISTS)]
                listing_peak = memory(pid, "VmHWM")
                polls = [seconds(lambda: stub.GetSelection(each[0])) for _ in range(POLLS)]
            catalog = sum(file.stat().st_size for file in (folder / "state").glob("selections.sqlite*"))
    return {
        "excluded_ids": ids,
        "submitting_peak_bytes": submitting_peak,
        "before_listing_bytes": before,
        "listing_peak_bytes": listing_peak,
        "list_seconds": statistics.median(lists),
        "poll_seconds": statistics.median(polls),
        "catalog_bytes": catalog,
    }


def requests_of(count: int, ids: int, pool: Path) -> Iterator[bytes]:
    """Yield serialized requests that differ only in their seeds."""
    request = selection_pb2.SelectBatchRequest(
        spec={"budget": 1, "exclude": {"ids": [f"image-{number:018d}" for number in range(ids)]}},
        pool={"uri": str(pool)},
        detached=True,
    )
    for seed in range(count):
        request.spec.seed = seed
        yield request.SerializeToString()


def submit(channel: grpc.Channel, request: bytes) -> str:
    """Send a serialized request and return the id of the detached selection."""
    call = channel.unary_stream(
        "/topb.v1.SelectionService/SelectBatch",
        request_serializer=None,
        response_deserializer=selection_pb2.SelectBatchResponse.FromString,
    )(request, timeout=300)
    started: selection_pb2.SelectBatchResponse = next(iter(call))
    call.cancel()
    return started.started.selection


def has_succeeded(
    stub: selection_pb2_grpc.SelectionServiceStub, request: selection_pb2.GetSelectionRequest
) -> bool:
    """Return whether a selection has succeeded."""
    state = stub.GetSelection(request).selection.state
    return state == selection_pb2.SELECTION_STATE_SUCCEEDED


def memory(pid: int, field: str) -> int:
    """Return a field of a process's status, such as VmRSS, in bytes."""
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{field}:")
    ]
    return 1024 * int(line.split()[1])


def reset_peak(pid: int) -> None:
    """Make VmHWM of a process begin anew at its resident memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
