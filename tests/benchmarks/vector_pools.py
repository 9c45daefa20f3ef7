"""Compare photos with a pool of their features, and measure what a pool of vectors takes.

    python tests/benchmarks/vector_pools.py --bundle bundles/ID --photos photos.parquet --out results.json

With a bundle, the photos' features are computed by its encoder and written as a pool of vectors. Every
strategy that the model serves must give the same picks, with the same scores, from photos and from vectors.

Then random vectors with probabilities, in row groups of 100,000, are selected from without a model, each time
in a new process: the peak resident memory of a pool and of one ten times as large, and the time against that
of reading the same columns with pyarrow alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import argument_parser, in_a_process, machine, peak_memory, write_json

CLASSES = 10
BUDGET = 500
MOST = 1.05
ROW_GROUP = 100_000


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--bundle", type=Path, help="a model with an encoder; default: only random vectors")
    parser.add_argument("--photos", type=Path, help="a pool of photos for the model")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--against", type=int, default=100_000, help="rows of the smaller pool")
    parser.add_argument("--width", type=int, default=256, help="elements of a vector")
    parser.add_argument("--out", type=Path, help="where to write the JSON; default: standard output")
    parser.add_argument("--child", nargs=2, metavar=("POOL", "WHAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(*arguments.child)))
        return
    results: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as directory:
        if arguments.bundle:
            results["photos"] = compare(arguments.bundle, arguments.photos, Path(directory))
        results["random_vectors"] = random_vectors(arguments, Path(directory))
    write_json(arguments.out, results)


def compare(bundle: Path, photos: Path, folder: Path) -> dict[str, Any]:
    """Return whether the picks from photos and from their features are the same, by strategy."""
    from topb_scorer.bundle import open_bundle
    from topb_scorer.in_process import select_batch
    from topb_scorer.strategies import served_by

    model = open_bundle(bundle)
    vectors = write_features(model, photos, folder / "features.parquet")
    found: dict[str, Any] = {}
    for strategy in sorted(served_by(model.strategies, model.output_shapes)):
        started = time.perf_counter()
        of_photos = select_batch(photos, BUDGET, bundle=bundle, strategy=strategy)
        middle = time.perf_counter()
        of_vectors = select_batch(vectors, BUDGET, bundle=bundle, strategy=strategy)
        ended = time.perf_counter()
        found[strategy] = {
            "same_picks_and_scores": of_photos.picks == of_vectors.picks,
            "photos_seconds": round(middle - started, 2),
            "vectors_seconds": round(ended - middle, 2),
            "ratio": round((middle - started) / (ended - middle), 1),
        }
        print(strategy, found[strategy], file=sys.stderr, flush=True)
    rows = of_photos.accounts.read
    return {"rows": rows, "width": model.output_shape("features")[0], "strategies": found}


def write_features(model: Any, photos: Path, path: Path) -> Path:
    """Write the features that the encoder of a model computes for a pool of photos."""
    from topb_scorer import imaging
    from topb_scorer.pools import AllowedRoots, open_pool
    from topb_scorer.scoring.model_session import ModelSession

    encoder = ModelSession(model).encoder
    (width,) = model.output_shape("features")
    schema = pa.schema({"id": pa.string(), "embedding": pa.list_(pa.float32(), width)})
    with pq.ParquetWriter(path, schema) as writer:
        for shard in open_pool(str(photos), roots=AllowedRoots.anywhere()).image_shards:
            items = list(shard.items())
            images = np.stack([imaging.load(item.image, model.input) for item in items])
            features = encoder.apply({"images": images})["features"]
            lists = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), width)
            writer.write_table(pa.table([pa.array([item.id for item in items]), lists], schema=schema))
    return path


def random_vectors(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return memory and time of selections from random vectors without a model."""
    found: dict[str, Any] = {"width": arguments.width, "classes": CLASSES, "budget": BUDGET}
    for name, rows in (("small", arguments.against), ("large", arguments.rows)):
        pool = write_random(folder / f"{name}.parquet", rows, arguments.width)
        found[name] = {
            "rows": rows,
            "file_mib": round(pool.stat().st_size / 2**20),
            "reading_alone": in_a_process("--child", str(pool), "read"),
            "selecting": in_a_process("--child", str(pool), "select"),
        }
        print(name, found[name], file=sys.stderr, flush=True)
        pool.unlink()
    ratio = found["large"]["selecting"]["peak_mib"] / found["small"]["selecting"]["peak_mib"]
    speed = found["large"]["reading_alone"]["seconds"] / found["large"]["selecting"]["seconds"]
    return found | {
        "peak_memory": {"ratio": round(ratio, 3), "at_most": MOST, "holds": ratio <= MOST},
        "speed_of_reading_alone": round(speed, 3),
    }


def write_random(path: Path, rows: int, width: int) -> Path:
    """Write random vectors and probabilities, a row group at a time."""
    random = np.random.default_rng(0)
    kinds = {"embedding": pa.list_(pa.float32(), width), "probabilities": pa.list_(pa.float32(), CLASSES)}
    schema = pa.schema({"id": pa.string(), **kinds})
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        for start in range(0, rows, ROW_GROUP):
            count = min(ROW_GROUP, rows - start)
            vectors = random.standard_normal((count, width), np.float32)
            probabilities = random.dirichlet(np.ones(CLASSES), count).astype(np.float32)
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
                for values in (vectors, probabilities)
            ]
            ids = pa.array([f"{row:08d}" for row in range(start, start + count)])
            writer.write_table(pa.table([ids, *columns], schema=schema), row_group_size=ROW_GROUP)
    return path


def measure(pool: str, what: str) -> dict[str, Any]:
    """Read a pool, or select from it by entropy, and return seconds and peak resident memory."""
    from topb_scorer.in_process import select_batch

    started = time.perf_counter()
    if what == "read":
        with pq.ParquetFile(pool, buffer_size=2**20, pre_buffer=False) as file:
            groups = file.num_row_groups
            read = sum(len(batch) for batch in file.iter_batches(1024, use_threads=False))
    else:
        read, groups = select_batch(pool, BUDGET, strategy="entropy").accounts.read, None
    seconds = time.perf_counter() - started
    found = {"seconds": round(seconds, 2), "rows_a_second": round(read / seconds)}
    return found | {"peak_mib": round(peak_memory() / 2**20, 1)} | ({"row_groups": groups} if groups else {})


if __name__ == "__main__":
    main()
