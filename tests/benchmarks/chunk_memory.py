"""Measure how much memory a server needs for chunks with very many empty images.

    PYTHONPATH=tests python tests/benchmarks/chunk_memory.py

Two callers send one chunk each, at the same time. It has two million images of no bytes, so it is small as
long as only the bytes of images count. The peak of the server's resident memory is compared with the peak
after two chunks of 300 images each.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from support.bundles import write_bundle
from support.images import random_pool
from support.servers import running_server
from topb.v1 import selection_pb2 as pb

CALLERS = 2
METHOD = "/topb.v1.SelectionService/SelectBatchFromStream"
Request = pb.SelectBatchFromStreamRequest


def main() -> None:
    """Print the peak before and after the large chunks, and how the callers fared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2_000_000, help="empty images in a chunk")
    images = parser.parse_args().images
    small = _chunk(*zip(*random_pool(300), strict=True))
    large = _chunk([str(row) for row in range(images)], [b""] * images)
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder) / "models")
        with running_server(Path(folder) / "models") as server:
            for name, chunk in (("300 images", small), (f"{images:,} empty images", large)):
                with ThreadPoolExecutor(CALLERS) as threads:
                    ends = list(threads.map(_sent, [server.address] * CALLERS, [chunk] * CALLERS))
                print(f"{CALLERS} chunks of {name}: peak {_peak_mib(server.process.pid):,.0f} MiB, {ends}")


def _chunk(ids: Sequence[str], images: Sequence[bytes]) -> bytes:
    # Serialized once, so that this process needs little memory while the server is measured.
    crc32 = zlib.crc32(b"".join(images))
    return Request(chunk=pb.PoolChunk(crc32=crc32, ids=ids, encoded={"data": images})).SerializeToString()


def _sent(address: str, chunk: bytes) -> str:
    def requests() -> Iterator[bytes]:
        spec = pb.SelectionSpec(budget=10)
        yield Request(start=pb.StreamStart(spec=spec)).SerializeToString()
        yield chunk
        yield Request(end=pb.StreamEnd(chunks=1)).SerializeToString()

    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        try:
            list(channel.stream_stream(METHOD)(requests(), timeout=600))
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return "done"


def _peak_mib(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
