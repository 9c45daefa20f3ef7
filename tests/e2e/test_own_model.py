"""Your own classifier and a folder of photos: import it, select, train a head on it, and select again."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from support.images import encode, random_image
from support.onnx_models import IMAGENET, classifier, saved
from support.servers import RunningServer, free_port, running_server

pytest.importorskip("torch", reason="the journey trains a head, but torch is not installed")

PHOTOS, BUDGET = 60, 24


def topb(*arguments: object) -> str:
    command = [sys.executable, "-m", "topb", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def topb_json(*arguments: object) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(topb(*arguments, "--json"))
    return printed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a classifier, `model.onnx`, and JPEG photos of several sizes, `photos/`."""
    saved(classifier(), tmp_path / "model.onnx")
    (tmp_path / "photos").mkdir()
    for i in range(PHOTOS):
        photo = encode(random_image(i, 20 + i % 7, 30 - i % 5), "JPEG")
        (tmp_path / "photos" / f"{i:03d}.jpg").write_bytes(photo)
    return tmp_path


@contextmanager
def serving(folder: Path, *, state: str) -> Iterator[tuple[RunningServer, str]]:
    """Serve the bundles and photos of the folder. Yields the server and the address of its metrics."""
    metrics = f"127.0.0.1:{free_port()}"
    options = ("--state", str(folder / state), "--metrics-listen", metrics)
    with running_server(folder / "bundles", folder, options=options) as server:
        yield server, metrics


def decoded(metrics: str) -> int:
    """Return how many images a server has read and encoded since it started."""
    with urlopen(f"http://{metrics}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    (count,) = (line.split()[1] for line in lines if line.startswith("topb_rows_encoded_total "))
    return int(float(count))


def select(folder: Path, server: RunningServer, strategy: str, *options: object) -> dict[str, Any]:
    given = ("--server", server.address, "--budget", BUDGET, "--strategy", strategy)
    return topb_json("select", folder / "photos", *given, *options)


def labels(folder: Path, picks: Path) -> Path:
    """Label the picks, by turns with two classes, as a CSV file of ids, paths and labels."""
    with picks.open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    rows = [f"{id_},photos/{id_},{('cat', 'dog')[n % 2]}" for n, id_ in enumerate(ids)]
    path = folder / "labels.csv"
    path.write_text("\n".join(["id,path,label", *rows]))
    return path


def test_a_round_on_ones_own_encoder_reads_the_photos_once(folder: Path) -> None:
    chosen = ("--features", "embedding", "--logits", "logits", *IMAGENET)
    given = ("--out", folder / "bundles", "--images", folder / "photos")
    imported = topb_json("import", folder / "model.onnx", *given, *chosen)

    with serving(folder, state="state") as (server, metrics):
        picks = folder / "picks.csv"
        first = select(folder, server, "typiclust", "--out", picks)
        assert (first["model"], len(first["picks"]), decoded(metrics)) == (
            imported["model_id"],
            BUDGET,
            PHOTOS,
        )
        select(folder, server, "entropy")
        assert decoded(metrics) == PHOTOS

        trained = topb_json(
            *("train", "--preset", "small", "--task.epochs", 5, "--cotrain.epochs", 2),
            *("--labelled", labels(folder, picks), "--pool", folder / "photos", "--out", folder / "bundles"),
            *("--task.encoder", imported["path"], "--task.train", "head"),
        )
        server.process.kill()

    with serving(folder, state="state") as (server, metrics):
        second = select(folder, server, "aalu")
        assert decoded(metrics) == 0
    assert second["model"] == trained["model_id"] != imported["model_id"]
    assert second["accounts"]["excluded_labelled"] == BUDGET
    assert not {pick["id"] for pick in second["picks"]} & {pick["id"] for pick in first["picks"]}

    with serving(folder, state="empty") as (server, metrics):
        from_images = select(folder, server, "aalu")
        assert decoded(metrics) == PHOTOS
    in_process = topb_json(
        "select", folder / "photos", "--bundle", trained["path"], "--budget", BUDGET, "--strategy", "aalu"
    )
    assert second["picks"] == from_images["picks"] == in_process["picks"]


def test_features_of_a_pointwise_selection_by_an_imported_model_are_kept(folder: Path) -> None:
    chosen = ("--features", "embedding", "--logits", "logits", *IMAGENET)
    topb("import", folder / "model.onnx", "--out", folder / "bundles", *chosen)
    with serving(folder, state="state") as (server, metrics):
        select(folder, server, "entropy")
        select(folder, server, "core_set")
        assert decoded(metrics) == PHOTOS
