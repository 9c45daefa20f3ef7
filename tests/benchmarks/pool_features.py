"""Write T's features of a pool to a file, for the k-center benchmark.

    topb train --labelled labelled.parquet --pool pool.parquet --out bundles --task.stem imagenet
    python tests/benchmarks/pool_features.py --bundle bundles/<model id> --pool pool.parquet \
        --labelled labelled.parquet

Writes features.npy, float32 (N, D) in the pool's order, and labelled.npy, the rows whose ids are labelled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from measuring import argument_parser

from topb_scorer.bundle import open_bundle
from topb_scorer.imaging import decode
from topb_scorer.scoring.model_session import ModelSession

_DECODED_TOGETHER = 1024


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True, help="a Parquet file of id and image")
    parser.add_argument("--labelled", type=Path, required=True, help="a Parquet file of id")
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to")
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    session = ModelSession(bundle, batch_size=64)
    parts, ids = [], []
    for rows in pq.ParquetFile(arguments.pool).iter_batches(_DECODED_TOGETHER, columns=["id", "image"]):
        images = np.stack([decode(image.as_py()) for image in rows["image"]])
        parts.append(session.score(images)["features"])
        ids += rows["id"].to_pylist()
    features = np.concatenate(parts)
    labelled = np.flatnonzero(
        np.isin(ids, pq.read_table(arguments.labelled, columns=["id"])["id"].to_pylist())
    )
    np.save(arguments.out / "features.npy", features)
    np.save(arguments.out / "labelled.npy", labelled)
    print(f"{bundle.model_id}: features {features.shape}, {len(labelled)} of them labelled")


if __name__ == "__main__":
    main()
