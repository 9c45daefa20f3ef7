"""Measure the memory in which `topb train` trains on photos.

    python tests/benchmarks/training_memory.py --run after --out docs/results/training_memory.json

Trains one round on two numbers of labelled photos, with a pool of as many, each in a new process with one
epoch of a narrow task model. The photos are crops of scikit-learn's `china.jpg`, JPEGs of 224 × 224.
A file that exists keeps the runs that it holds under other names, so it can compare two commits. RssAnon is
the memory that the process needs; RssFile is the part of its mapped files that happens to be in
memory, which the operating system takes back when it needs the room.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import argument_parser, in_a_process, machine, write_json

SIDE = 224
POLL_SECONDS = 0.02


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--photos", type=int, nargs="+", default=[500, 4000], help="labelled photos")
    parser.add_argument("--run", default="rounds", help="name of the run in the JSON")
    parser.add_argument("--out", type=Path, help="JSON to which the run is added; default: standard output")
    parser.add_argument("--child", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child)))
    else:
        path = arguments.out
        earlier = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
        run = {arguments.run: [one(photos) for photos in arguments.photos]}
        write_json(path, {**earlier, "machine": machine(), **run})


def one(photos: int) -> dict[str, object]:
    """Return the measurements of a round with this number of labelled photos and a pool of as many."""
    with tempfile.TemporaryDirectory() as directory:
        write_photos(Path(directory), photos)
        measured: dict[str, object] = in_a_process("--child", directory)
    decoded = 2 * photos * SIDE * SIDE * 3
    return {"labelled": photos, "pool": photos, "decoded_mib": round(decoded / 2**20), **measured}


def measure(folder: Path) -> dict[str, object]:
    """Train a round in this process; return the peaks of its resident memory in MiB, and seconds."""
    from topb.commands import main as topb

    peaks, done = {"RssAnon": 0, "RssFile": 0, "RssShmem": 0}, threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        paths = ["--labelled", f"{folder}/labelled.parquet", "--pool", f"{folder}/pool.parquet"]
        small = [
            "--preset",
            "small",
            "--task.epochs",
            "1",
            "--cotrain.epochs",
            "1",
            "--task.batch-size",
            "64",
        ]
        if topb(["train", *paths, "--out", f"{folder}/bundles", *small, "--json"]):
            raise RuntimeError("training failed; the error is above")
    finally:
        done.set()
        watcher.join()
    mebibytes = {f"peak_{name}_mib": round(kib / 1024) for name, kib in peaks.items()}
    return {**mebibytes, "seconds": round(time.perf_counter() - started, 1)}


def write_photos(folder: Path, count: int) -> None:
    """Write labelled.parquet and pool.parquet with `count` photos each."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    photo, random = load_sample_image("china.jpg"), np.random.default_rng(0)
    for name in ("labelled", "pool"):
        encoded = []
        for _ in range(count):
            top, left = random.integers(0, photo.shape[0] - SIDE), random.integers(0, photo.shape[1] - SIDE)
            buffer = io.BytesIO()
            Image.fromarray(photo[top : top + SIDE, left : left + SIDE]).save(buffer, "JPEG")
            encoded.append(buffer.getvalue())
        ids = [f"{name}-{row}" for row in range(count)]
        table = pa.table({"id": ids, "image": encoded, "label": [str(row % 2) for row in range(count)]})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=256)


if __name__ == "__main__":
    main()
