"""Check that a pool ten times as large takes the same memory, and time selections from a scored pool.

    python tests/benchmarks/pool_memory.py --out docs/results/pool_memory.json

Scores 100,000 and 1,000,000 images with a small model and compares the peak resident memory. Each pool is
scored in a new process that has selected one image before, like a running server. The check must fail for a
deliberate leak. The scored pool is selected from again by another strategy, and again after the pool has
grown by 1 %. The images are scikit-learn's digits, 8×8 PNGs, repeated with new ids.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from measuring import argument_parser, in_a_process, machine, peak_memory, write_json

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.bundles import convolutional_graph, write_bundle

ROW_GROUP = 10_000
FILE_ROWS = 100_000
BATCH = 256
BUDGET = 1000
SIDE = 8
MOST = 1.05


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--against", type=int, default=100_000, help="images of the smaller pool")
    parser.add_argument("--leaking", type=int, default=300_000, help="images of the pool scored with a leak")
    parser.add_argument("--bundle", type=Path, help="a model's bundle; default: a single convolution")
    parser.add_argument("--out", type=Path, help="where to write the JSON; default: standard output")
    parser.add_argument(
        "--child", nargs=4, metavar=("POOL", "BUNDLE", "LOG", "STRATEGY"), help=argparse.SUPPRESS
    )
    parser.add_argument("--leak", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(*arguments.child, leak=arguments.leak)))
    else:
        write_json(arguments.out, benchmark(arguments))


def benchmark(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the measurements, and how they compare with the requirements."""
    images, against, model = arguments.images, arguments.against, arguments.bundle
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        graph = convolutional_graph(height=SIDE, width=SIDE, classes=10, features=16)
        bundle = model or write_bundle(folder / "models", graph)
        pngs = digits()

        def run(pool: Path, log: str, strategy: str = "margin", *flags: str) -> dict[str, Any]:
            child = ("--child", str(pool), str(bundle), str(folder / log), strategy)
            measured: dict[str, Any] = in_a_process(*child, *flags)
            print(f"{log} {strategy}: {measured}", file=sys.stderr, flush=True)
            return measured

        small = run(write_pool(folder / "small", pngs, against), "small")
        leaky = run(write_pool(folder / "leaking", pngs, arguments.leaking), "leaking", "margin", "--leak")
        pool = write_pool(folder / "pool", pngs, images)
        large = run(pool, "large")
        again = run(pool, "large", "entropy")
        write_file(pool / "more.parquet", pngs, images, images // 100)
        grown = run(pool, "large")
    return {
        "machine": machine(),
        "images": images,
        "against": against,
        "pool": {"image": f"PNG {SIDE}×{SIDE}", "row_group": ROW_GROUP, "rows_a_file": FILE_ROWS},
        "model": f"bundle {model.name}" if model else f"one convolution, {SIDE}×{SIDE}, 16 features",
        "batch_size": BATCH,
        "budget": BUDGET,
        "small": small,
        "large": large,
        "leaking": {"images": arguments.leaking, **leaky},
        "selected_again_by_entropy": again,
        "grown_by_1_percent": grown,
        "ratios": {
            "peak_memory": compared(large["peak_mib"], small["peak_mib"], at_most=MOST),
            "peak_memory_with_a_leak": {
                **compared(leaky["peak_mib"], small["peak_mib"], at_most=MOST),
                "caught": leaky["peak_mib"] / small["peak_mib"] > MOST,
            },
            "scoring_to_selecting_again": compared(large["seconds"], again["seconds"], at_least=100),
            "grown_to_whole": compared(grown["seconds"], large["seconds"]),
            "newly_scored_to_whole": compared(grown["scored_rows"], large["scored_rows"]),
        },
    }


def compared(
    value: float, other: float, *, at_most: float | None = None, at_least: float | None = None
) -> dict[str, object]:
    """Return the ratio of two measurements, and whether it is within its limits."""
    ratio = value / other
    compared: dict[str, object] = {"ratio": round(ratio, 4)}
    if at_most is not None:
        compared |= {"at_most": at_most, "holds": ratio <= at_most}
    if at_least is not None:
        compared |= {"at_least": at_least, "holds": ratio >= at_least}
    return compared


def measure(pool: str, bundle: str, log: str, strategy: str, *, leak: bool) -> dict[str, object]:
    """Select in this process after a warm-up; return seconds, newly scored rows and peak resident memory."""
    import numpy as np

    from topb_scorer.bundle import open_bundle
    from topb_scorer.engines.local import EngineSettings, LocalEngine
    from topb_scorer.pools import AllowedRoots, open_pool
    from topb_scorer.pools.stream import ChunkShard
    from topb_scorer.scoring.model_logs import logs_below
    from topb_scorer.selecting.observer import SelectionObserver
    from topb_scorer.selecting.selection import select_from_pool
    from topb_scorer.selecting.spec import SelectionSpec

    kept: list[object] = []
    if leak:
        from topb_scorer.scoring import model_session

        scored_part = model_session.scored_rows

        def leaking(*arguments: Any, **options: Any) -> Any:
            rows = scored_part(*arguments, **options)
            kept.append(rows)
            return rows

        model_session.scored_rows = leaking
    engine = LocalEngine(open_bundle(Path(bundle)), EngineSettings(batch_size=BATCH))
    opened = open_pool(pool, roots=AllowedRoots.anywhere())
    held = logs_below(Path(log), needs_features=False)
    before = {shard.identity for shard in opened.shards if held.holds(shard.identity)}

    class CommittedRows(SelectionObserver):
        count = 0

        def on_commit(self, shard: Any) -> None:
            self.count += shard.rows

    # The imports and files of the first selection are not part of the measurement.
    one = ChunkShard(0, ("warm-up",), np.zeros((1, SIDE, SIDE, 3), np.uint8))
    select_from_pool(SelectionSpec(1, strategy), engine, [one], cancelled=threading.Event())
    started = time.perf_counter()
    scored = CommittedRows()
    result = select_from_pool(
        SelectionSpec(BUDGET, strategy),
        engine,
        opened.shards,
        held,
        observer=scored,
        cancelled=threading.Event(),
    )
    seconds = time.perf_counter() - started
    return {
        "seconds": round(seconds, 3),
        "rows": result.accounts.read,
        "shards": len(opened.shards),
        "shards_held_before": len(before),
        "scored_rows": scored.count,
        "images_a_second": round(result.accounts.read / seconds),
        "peak_mib": round(peak_memory() / 2**20, 1),
    }


def digits() -> list[bytes]:
    """Return scikit-learn's 1,797 digits as PNGs."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images = (load_digits().images * 15.9375).astype("uint8")
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).convert("RGB").save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded


def write_pool(folder: Path, pngs: list[bytes], images: int) -> Path:
    """Write a folder of Parquet files with this number of images."""
    folder.mkdir()
    for start in range(0, images, FILE_ROWS):
        write_file(folder / f"{start:09d}.parquet", pngs, start, min(FILE_ROWS, images - start))
    return folder


def write_file(path: Path, pngs: list[bytes], start: int, rows: int) -> None:
    """Write a Parquet file of images whose ids are numbered from `start`."""
    ids = [f"digit-{row:09d}" for row in range(start, start + rows)]
    images = [pngs[row % len(pngs)] for row in range(start, start + rows)]
    pq.write_table(pa.table({"id": ids, "image": images}), path, row_group_size=ROW_GROUP)


if __name__ == "__main__":
    main()
