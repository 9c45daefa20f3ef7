"""Measure what content digests cost, where nothing else costs much: with a graph that does next to nothing.

  packed  uint8 (32, 32, 3) arrays in memory → ranked ids
  jpeg    JPEGs of 256 × 256 in memory → ranked ids, decoded and resized to 224 × 224

Selections with and without digests run alternately. The results are medians of the paired ratios of
wall-clock time and of CPU time. Usage:

  python tests/benchmarks/content_digest.py --out content_digest.json
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from measuring import argument_parser, machine, write_json
from PIL import Image

from topb_scorer.bundle import open_bundle
from topb_scorer.engines.local import EngineSettings, LocalEngine
from topb_scorer.pools.pool import NO_DIGEST, content_digest
from topb_scorer.pools.stream import ChunkShard
from topb_scorer.scoring import pipeline
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.bundles import null_graph, write_bundle

CHUNK_ROWS = 512


def packed(images: int) -> list[ChunkShard]:
    rng = np.random.default_rng(0)
    shape = (CHUNK_ROWS, 32, 32, 3)
    return [
        ChunkShard(seq, _ids(seq), rng.integers(0, 256, shape, np.uint8))
        for seq in range(images // CHUNK_ROWS)
    ]


def jpegs(images: int) -> list[ChunkShard]:
    photos = []
    for seed in range(64):
        noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((256, 256)).save(buffer, "JPEG", quality=90)
        photos.append(buffer.getvalue())
    chunk = [photos[row % len(photos)] for row in range(CHUNK_ROWS)]
    return [ChunkShard(seq, _ids(seq), chunk) for seq in range(images // CHUNK_ROWS)]


def _ids(seq: int) -> list[str]:
    return [f"{seq:04d}-{row:04d}" for row in range(CHUNK_ROWS)]


def times(engine: LocalEngine, shards: list[ChunkShard], *, with_digests: bool) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds of one selection."""
    pipeline.content_digest = content_digest if with_digests else lambda _image: NO_DIGEST
    wall, cpu = time.perf_counter(), time.process_time()
    select_from_pool(SelectionSpec(100), engine, shards, cancelled=threading.Event())
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, object] = {"machine": machine(), "command": " ".join(sys.argv)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, shards, side, batch_size in (
            ("packed", packed(10_240), 32, 256),
            ("jpeg", jpegs(512), 224, 32),
        ):
            path = write_bundle(Path(scratch, name), null_graph(height=side, width=side))
            engine = LocalEngine(open_bundle(path), EngineSettings(batch_size=batch_size))
            times(engine, shards, with_digests=True)
            pairs = [
                (times(engine, shards, with_digests=False), times(engine, shards, with_digests=True))
                for _ in range(arguments.repeats)
            ]
            images = len(shards) * CHUNK_ROWS
            results[name] = {
                "images": images,
                "wall_ratio": statistics.median(without[0] / own[0] for without, own in pairs),
                "cpu_ratio": statistics.median(without[1] / own[1] for without, own in pairs),
                "cpu_microseconds": statistics.median(1e6 * own[1] / images for _, own in pairs),
            }
            print(name, results[name], flush=True)
    write_json(arguments.out, results)


if __name__ == "__main__":
    main()
