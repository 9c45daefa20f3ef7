"""Measure the throughput of selections relative to the bare inner loop on the same machine.

  model  Parquet → ranked ids, compared with `session.run` over arrays already in memory
  jpeg   the same with a graph that does next to nothing, compared with decoding alone on all cores
  grpc   packed uint8 streamed to a server with such a graph, compared with echoing the same bytes over gRPC
  torch  Parquet → ranked ids, compared with PyTorch's evaluation loop with a DataLoader on the same model

The two programs of a pair run alternately, and the result is the median of the paired ratios. Usage:

  python tests/benchmarks/throughput.py --bundle bundles/<id> --pool pool.parquet --out throughput.json
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import argument_parser, machine, seconds, write_json
from PIL import Image

import topb
from topb.image_input import ImageInput
from topb_scorer.bundle import Bundle, open_bundle
from topb_scorer.engines.local import LocalEngine
from topb_scorer.imaging import load
from topb_scorer.pools import AllowedRoots, open_pool
from topb_scorer.scoring.cores import usable_cores
from topb_scorer.selecting.selection import select_from_pool
from topb_scorer.selecting.spec import SelectionSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.bundles import null_graph, write_bundle
from support.servers import running_server

PARTS = ("model", "torch", "jpeg", "grpc")
BATCH_SIZE = 32
BUDGET = 100
CHUNK_BYTES = 2 * 2**20
ROOTS = AllowedRoots.anywhere()


def paired(
    ours: Callable[[], object], limit: Callable[[], object], repeats: int, images: int
) -> dict[str, float]:
    """Run both functions alternately after one unmeasured run of each, and return the ratio of their
    throughputs."""
    ours(), limit()
    own, theirs = zip(*((seconds(ours), seconds(limit)) for _ in range(repeats)), strict=True)
    ratios = [other / mine for mine, other in zip(own, theirs, strict=True)]
    return {
        "images": images,
        "repeats": repeats,
        "ours_seconds": statistics.median(own),
        "limit_seconds": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def selection(engine: LocalEngine, pool: Path) -> Callable[[], None]:
    """Return a function that selects, Parquet → ranked ids, with the model already loaded."""
    spec = SelectionSpec(BUDGET, strategy="aalu")

    def select() -> None:
        opened = open_pool(str(pool), roots=ROOTS)
        result = select_from_pool(spec, engine, opened.shards, cancelled=threading.Event())
        assert result.accounts.scored == opened.rows

    return select


def decoded(pool: Path, target: ImageInput) -> np.ndarray:
    shards = open_pool(str(pool), roots=ROOTS).shards
    return np.stack([load(item.image, target) for shard in shards for item in shard.items()])


def bare_loop(bundle: Bundle, images: np.ndarray) -> Callable[[], None]:
    """Return a function that runs the graphs with ONNX Runtime's defaults over full batches in memory."""
    encoder, head = (
        ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        for graph in (bundle.encoder, bundle.head)
    )
    batches = [
        np.ascontiguousarray(images[i : i + BATCH_SIZE])
        for i in range(0, len(images) - BATCH_SIZE + 1, BATCH_SIZE)
    ]
    left = len(images) - BATCH_SIZE * len(batches)
    assert left == 0, (
        f"the pool has {left} images more than a multiple of {BATCH_SIZE}; use a pool without a remainder"
    )

    def loop() -> None:
        for batch in batches:
            (features,) = encoder.run(["features"], {"images": batch})
            head.run(["score", "probabilities"], {"features": features})

    return loop


def decoding(pool: Path, target: ImageInput) -> Callable[[], None]:
    """Return a function that only decodes bytes in memory, with the same code and on all cores."""
    encoded = [item.image for shard in open_pool(str(pool), roots=ROOTS).shards for item in shard.items()]
    parts = [encoded[i : i + BATCH_SIZE] for i in range(0, len(encoded), BATCH_SIZE)]

    def decode_part(part: list[bytes]) -> None:
        for image in part:
            load(image, target)

    def decode() -> None:
        with ThreadPoolExecutor(usable_cores()) as threads:
            list(threads.map(decode_part, parts))

    return decode


def as_photos(pool: Path, path: Path, count: int, size: int) -> Path:
    """Write the pool's images as JPEGs of size × size, quality 90, repeated with new ids up to `count`."""
    images = [item.image for shard in open_pool(str(pool), roots=ROOTS).shards for item in shard.items()][
        :count
    ]
    photos = []
    for image in images:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(image)).convert("RGB").resize((size, size)).save(buffer, "JPEG", quality=90)
        photos.append(buffer.getvalue())
    rows = [photos[i % len(photos)] for i in range(count)]
    pq.write_table(pa.table({"id": [f"{i}" for i in range(count)], "image": rows}), path, row_group_size=1024)
    return path


def torch_loop(bundle: Bundle, pool: Path) -> Callable[[], None]:
    """Return the usual evaluation loop: a Dataset that decodes with Pillow, a DataLoader, `no_grad`, top-b.

    The model has the layers of the exported graph with other weights, which take the same time.
    """
    import torch
    from google.protobuf import json_format
    from torch.utils.data import DataLoader, Dataset

    from topb_trainer.config import TrainConfig
    from topb_trainer.models.assistant import Assistant
    from topb_trainer.models.resnet import Normalisation, ResNet18
    from topb_trainer.models.scoring import AssistantModel
    from topb_trainer.models.vae import Vae
    from topb_trainer.presets import from_mapping

    # protobuf's Struct has no integers, and a missing setting has its default value.
    settings = json.loads(
        json_format.MessageToJson(bundle.manifest.configuration),
        parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text),
        object_hook=lambda part: {name: value for name, value in part.items() if value is not None},
    )
    config = from_mapping(TrainConfig, settings, "the bundle's configuration")
    classes = len(bundle.manifest.classes)
    stem = "cifar" if config.task.stem == "auto" else config.task.stem
    task = ResNet18(Normalisation([0.5] * 3, [0.25] * 3), classes, config.task.width, stem)
    vae = Vae(task.feature_size, config.vae.latent_size, config.vae.hidden)
    assistant = Assistant(config.vae.latent_size, classes, config.assistant.hidden)
    model = AssistantModel(task, torch.nn.Identity(), vae, assistant).eval()
    target = bundle.input

    class Images(Dataset[torch.Tensor]):
        def __init__(self) -> None:
            shards = open_pool(str(pool), roots=ROOTS).shards
            self.encoded = [item.image for shard in shards for item in shard.items()]

        def __len__(self) -> int:
            return len(self.encoded)

        def __getitem__(self, index: int) -> torch.Tensor:
            image = Image.open(io.BytesIO(self.encoded[index])).convert("RGB")
            return torch.from_numpy(np.asarray(image.resize((target.width, target.height))).copy())

    def evaluate() -> None:
        loader = DataLoader(Images(), batch_size=BATCH_SIZE, num_workers=usable_cores())
        with torch.no_grad():
            scores = torch.cat([model(batch)[0] for batch in loader])
        scores.topk(BUDGET)

    return evaluate


def grpc_stream(server: str, images: np.ndarray) -> Callable[[], None]:
    rows = [(f"{i:07d}", image) for i, image in enumerate(images)]

    def select() -> None:
        with topb.Client(server) as client:
            assert client.select_batch(iter(rows), BUDGET).accounts.scored == len(rows)

    return select


ECHO_SERVER = """
import asyncio, grpc
async def echo(requests, context):
    async for request in requests:
        yield request
async def main():
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Echo", {"Echo": handler})])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination(600)
asyncio.run(main())
"""


@contextmanager
def echo_server() -> Iterator[int]:
    """Start a server on a free loopback port that echoes whatever it receives, and stop it afterwards."""
    with subprocess.Popen([sys.executable, "-c", ECHO_SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def grpc_echo(port: int, images: np.ndarray) -> Callable[[], None]:
    payload = images.tobytes()

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(payload), CHUNK_BYTES):
            yield payload[start : start + CHUNK_BYTES]

    def echo() -> None:
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            received = sum(len(message) for message in channel.stream_stream("/Echo/Echo")(chunks()))
        assert received == len(payload)

    return echo


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument(
        "--pool", type=Path, required=True, help=f"Parquet, a multiple of {BATCH_SIZE} images"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--null-images", type=int, default=8192, help="for the graphs that do nothing")
    parser.add_argument("--photo-size", type=int, default=256)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    only, bundle, pool = arguments.only, open_bundle(arguments.bundle), arguments.pool
    results: dict[str, object] = {"machine": machine(), "command": " ".join(sys.argv)}

    def compare(name: str, ours: Callable[[], object], limit: Callable[[], object], images: int) -> None:
        results[name] = paired(ours, limit, arguments.repeats, images)
        print(name, results[name], flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if "model" in only:
            images = decoded(pool, bundle.input)
            compare("model", selection(LocalEngine(bundle), pool), bare_loop(bundle, images), len(images))
        if "torch" in only:
            count = open_pool(str(pool), roots=ROOTS).rows
            compare("torch", selection(LocalEngine(bundle), pool), torch_loop(bundle, pool), count)
        if "jpeg" in only:
            null = open_bundle(write_bundle(folder / "null-photos", null_graph(height=224, width=224)))
            count = arguments.null_images
            photos = as_photos(pool, folder / "photos.parquet", count, arguments.photo_size)
            compare("jpeg", selection(LocalEngine(null), photos), decoding(photos, null.input), count)
        for side in (32, 224) if "grpc" in only else ():
            models = folder / f"null-{side}"
            write_bundle(models, null_graph(height=side, width=side))
            count = 4 * arguments.null_images * 32 * 32 // side**2
            images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
            with running_server(models, options=("--batch-size=256",)) as server, echo_server() as port:
                compare(f"grpc_{side}", grpc_stream(server.address, images), grpc_echo(port, images), count)
    if arguments.out:
        write_json(arguments.out, results)


if __name__ == "__main__":
    main()
