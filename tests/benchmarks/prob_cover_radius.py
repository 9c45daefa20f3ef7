"""Compare the default radius of ProbCover with two other rules, on features of CIFAR-10.

    python tests/benchmarks/prob_cover_radius.py cifar10_train.parquet cifar10_test.parquet --out FILE.json

The features come from a small convolutional network that was trained on 1,000 images. Of 12,000 other
images, pools of 4,000 are drawn. A logistic regression is trained on the features of the picks, from a
cold start. The rules are the default; balls of 1 % of the pool; the former default, at which 95 % of
the balls contain a single predicted class; and random picks instead. Accuracies are means over the
pools, in percent.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from measuring import argument_parser, machine, write_json
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.selecting import set_candidates
from topb_scorer.cancellation import never_cancelled
from topb_scorer.geometry.balls import radius_of_balls
from topb_scorer.geometry.euclidean import squared_distances
from topb_scorer.strategies.prob_cover import ProbCover

TRAINED_ON, POOL, POOLS, BUDGETS = 1000, 4000, 3, (30, 100, 300)
Array = NDArray[np.float32]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--out", type=Path, help="where to write the JSON; default: standard output")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    (images, labels), (test_images, test_labels) = read(arguments.train, 13_000), read(arguments.test, 3000)
    network, head = trained(images[:TRAINED_ON], labels[:TRAINED_ON])
    features, test = outputs(network, images), outputs(network, test_images)
    classes = outputs(nn.Sequential(network, head), images).argmax(axis=1)
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(POOLS):
        pool = np.random.default_rng(number).permutation(np.arange(TRAINED_ON, len(images)))[:POOL]
        rows = features[pool]
        radii = {
            "default": None,
            "balls of 1 %": radius_of_balls(rows, 0.01, seed=0, check=never_cancelled),
            "95 % pure balls": pure_radius(rows, classes[pool]),
        }
        for budget in BUDGETS:
            for rule, radius in radii.items():
                batch = ProbCover(radius=radius).select(set_candidates(rows), budget=budget, seed=number)
                case = found.setdefault(f"{rule}, budget {budget}", {})
                score = accuracy(rows[batch.indices], labels[pool][batch.indices], test, test_labels)
                for name, value in (("accuracy", score), *batch.measures.items()):
                    case.setdefault(name, []).append(value)
            drawn = np.random.default_rng(number).permutation(POOL)[:budget]
            score = accuracy(rows[drawn], labels[pool][drawn], test, test_labels)
            found.setdefault(f"random, budget {budget}", {}).setdefault("accuracy", []).append(score)
    means = {
        case: {name: round(float(np.mean(v)), 3) for name, v in named.items()}
        for case, named in found.items()
    }
    write_json(arguments.out, {"machine": machine(), "means": means})


def read(path: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    table = pq.read_table(path).slice(0, count)
    images = [row["bytes"] if isinstance(row, dict) else row for row in table["image"].to_pylist()]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in images])
    return pixels, table["label"].to_numpy()


def scaled(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1  # (N, 3, H, W)


def trained(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[nn.Module, nn.Module]:
    layers: list[nn.Module] = []
    for inputs, width, stride in ((3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [nn.Conv2d(inputs, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
    network, head = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(128, 10)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], 3e-3, weight_decay=5e-3)
    x, y = scaled(images), torch.from_numpy(labels)
    for _ in range(12):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(network(x[batch])), y[batch]).backward()
            optimizer.step()
    return network.eval(), head.eval()


def outputs(module: nn.Module, images: NDArray[np.uint8]) -> Array:
    with torch.no_grad():
        parts = [module(scaled(images[i : i + 500])).numpy() for i in range(0, len(images), 500)]
    return np.concatenate(parts)


def pure_radius(rows: Array, classes: NDArray[np.int64]) -> float:
    to_others = [squared_distances(rows[classes != classes[i]], rows[i]).min() for i in range(1000)]
    return float(np.sqrt(np.quantile(to_others, 0.05, method="lower")) * (1 - 1e-6))


def accuracy(rows: Array, labels: NDArray[np.int64], test: Array, test_labels: NDArray[np.int64]) -> float:
    scale = test.std(axis=0).mean()
    model = LogisticRegression(max_iter=500).fit(rows / scale, labels)
    return 100 * float(model.score(test / scale, test_labels))


if __name__ == "__main__":
    main()
