"""Run two rounds of active learning on real digits: train, select, label, and train again.

    python examples/two_rounds.py rounds/

This needs the packages of the demo: pip install 'topb[demo]'. The labels of the data set take the place of a
person who labels.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

from topb_scorer.in_process import select_batch

INITIAL, BUDGET, TEST = 60, 40, 300


def png(digit: np.ndarray) -> bytes:
    """Return an 8 × 8 digit of 17 grey levels as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray((digit * 15).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def write(path: Path, rows: list[int], images: list[bytes], labels: list[str] | None = None) -> Path:
    """Write rows as a Parquet file that `topb train` reads, with id, image and, if it is known, label."""
    columns = {"id": [f"digit-{row}" for row in rows], "image": [images[row] for row in rows]}
    if labels is not None:
        columns["label"] = [labels[row] for row in rows]
    pq.write_table(pa.table(columns), path)
    return path


def train(folder: Path, labelled: Path, pool: Path, test: Path, round_index: int) -> dict[str, object]:
    """Train one round and return what `topb train --json` prints."""
    command = [sys.executable, "-m", "topb", "train", "--preset", "small", "--task.no-horizontal-flip"]
    command += ["--labelled", str(labelled), "--pool", str(pool), "--test", str(test)]
    command += ["--out", str(folder / "bundles"), "--round", str(round_index), "--json"]
    printed: dict[str, object] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    )
    return printed


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    images = [png(digit) for digit in digits.images]
    oracle = [str(label) for label in digits.target]
    order = np.random.default_rng(0).permutation(len(images)).tolist()

    test = write(folder / "test.parquet", order[:TEST], images, oracle)
    pool = write(folder / "pool.parquet", order[TEST:], images)
    labelled = order[TEST : TEST + INITIAL]

    for round_index in range(2):
        known = write(folder / f"labelled-{round_index}.parquet", labelled, images, oracle)
        trained = train(folder, known, pool, test, round_index)
        print(f"round {round_index}: {len(labelled)} labels, test accuracy {trained['test_accuracy']:.1%}")

        known_ids = [f"digit-{row}" for row in labelled]
        result = select_batch(str(pool), BUDGET, bundle=str(trained["path"]), exclude=known_ids)
        labelled += [int(id_.removeprefix("digit-")) for id_ in result.ids]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
