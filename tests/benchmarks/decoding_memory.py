"""Measure what large images cost a server: memory, and work after the caller has left.

    python tests/benchmarks/decoding_memory.py --out docs/results/decoding_memory.json

Starts `topb serve` with a small model and sends it ScoreImages calls with PNGs that are small files but large
images. To compare two versions of topb, copy this file to the other one's tests/benchmarks and run both.

* at once: --calls calls with one image each. Peak memory is the server's VmHWM, less its memory before. The
  memory that is kept is its VmRSS a second after the last response, less its memory before.
* cancelled: --calls calls with --images images each are cancelled after --after seconds. The CPU time that
  the server spends from then on is measured until it is idle.
* drained: the same calls, and SIGTERM instead of the cancel. The time until the process has ended is
  measured, at most 90 s. It includes the 5 s that a draining server gives calls to end.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from measuring import argument_parser, machine, write_json

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.bundles import write_bundle
from support.servers import running_server
from topb.v1 import selection_pb2 as pb
from topb.v1 import selection_pb2_grpc

MIB = 2**20
LONGEST = 90.0
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--side", type=int, default=9459, help="height and width of the images, in pixels")
    parser.add_argument("--mode", default="RGBA", help="Pillow's mode of the images")
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--images", type=int, default=16, help="images of each call that is ended early")
    parser.add_argument("--after", type=float, default=2.0, help="seconds until these calls are ended")
    parser.add_argument("--skip-ended", action="store_true", help="measure only the calls at once")
    parser.add_argument("--out", type=Path, help="where to write the JSON; default: standard output")
    arguments = parser.parse_args()
    write_json(arguments.out, benchmark(arguments))


def benchmark(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the measurements."""
    image = png(arguments.side, arguments.mode)
    one = pb.ScoreImagesRequest(images=[image])
    many = pb.ScoreImagesRequest(images=[image] * arguments.images)
    results: dict[str, object] = {
        "machine": machine(),
        "image": f"PNG {arguments.side}×{arguments.side} {arguments.mode}, {len(image)} bytes",
        "calls": arguments.calls,
    }
    with served() as (process, stub):
        results["at_once"] = at_once(process, stub, [one] * arguments.calls)
    if not arguments.skip_ended:
        with served() as (process, stub):
            results["cancelled"] = cancelled(process, stub, [many] * arguments.calls, arguments.after)
        with served() as (process, stub):
            results["drained"] = drained(process, stub, [many] * arguments.calls, arguments.after)
    return results


def at_once(
    process: subprocess.Popen[str],
    stub: selection_pb2_grpc.SelectionServiceStub,
    requests: list[pb.ScoreImagesRequest],
) -> dict[str, object]:
    before = memory(process.pid, "VmRSS")
    started = time.perf_counter()
    calls = [stub.ScoreImages.future(request, timeout=600) for request in requests]
    for call in calls:
        assert call.result().results[0].HasField("scored"), call.result()
    seconds = time.perf_counter() - started
    time.sleep(1)
    return {
        "seconds": round(seconds, 2),
        "peak_mib": round((memory(process.pid, "VmHWM") - before) / MIB),
        "kept_mib": round((memory(process.pid, "VmRSS") - before) / MIB),
    }


def cancelled(
    process: subprocess.Popen[str],
    stub: selection_pb2_grpc.SelectionServiceStub,
    requests: list[pb.ScoreImagesRequest],
    after: float,
) -> dict[str, object]:
    calls = [stub.ScoreImages.future(request) for request in requests]
    time.sleep(after)
    for call in calls:
        call.cancel()
    spent = cpu_seconds(process.pid)
    ended = time.perf_counter()
    while time.perf_counter() - ended < LONGEST:
        before = cpu_seconds(process.pid)
        time.sleep(1)
        if cpu_seconds(process.pid) - before < 0.05:
            break
    return {"cpu_seconds_after_the_cancel": round(cpu_seconds(process.pid) - spent, 2)}


def drained(
    process: subprocess.Popen[str],
    stub: selection_pb2_grpc.SelectionServiceStub,
    requests: list[pb.ScoreImagesRequest],
    after: float,
) -> dict[str, object]:
    calls = [stub.ScoreImages.future(request) for request in requests]
    time.sleep(after)
    started = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        return {"seconds_to_exit": f"more than {LONGEST:.0f}"}
    assert all(call.done() for call in calls)
    return {"seconds_to_exit": round(time.perf_counter() - started, 2)}


@contextmanager
def served() -> Iterator[tuple[subprocess.Popen[str], selection_pb2_grpc.SelectionServiceStub]]:
    """Start a server that has scored one small image, so that its imports are not measured."""
    options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", 64 * MIB)]
    with tempfile.TemporaryDirectory() as directory:
        write_bundle(Path(directory))
        with (
            running_server(Path(directory)) as server,
            grpc.insecure_channel(server.address, options=options) as channel,
        ):
            stub = selection_pb2_grpc.SelectionServiceStub(channel)
            stub.ScoreImages(pb.ScoreImagesRequest(images=[png(32, "RGB")]))
            yield server.process, stub


def png(side: int, mode: str) -> bytes:
    """Return a PNG of one colour."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new(mode, (side, side), 60_000 if mode == "I;16" else "teal").save(buffer, "PNG")
    return buffer.getvalue()


def memory(pid: int, name: str) -> int:
    """Return a line of /proc/PID/status in bytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)]
    return 1024 * int(line.split()[1])


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
