from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.images import random_pool
from support.servers import RunningServer

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def pool(data: Path) -> str:
    return str(data / "pool.parquet")


def test_example_select_from_a_pool_prints_the_picks(server: RunningServer, pool: str) -> None:
    lines = run_example("select_from_a_pool.py", server.address, pool, "5").splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["1", "2", "3", "4", "5"]
    assert lines[5] == "read 300, scored 300, skipped {}"


def test_example_stream_a_folder_sends_every_image(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for id_, image in random_pool(12):
        (tmp_path / "below" / f"{id_}.png").write_bytes(image)
    (tmp_path / "notes.txt").write_text("not an image")
    picked = run_example("stream_a_folder.py", server.address, str(tmp_path), "4").splitlines()
    assert len(picked) == 4
    assert all(id_.startswith("below/") for id_ in picked)


def test_example_follow_a_selection_finds_its_selection_again(server: RunningServer, pool: str) -> None:
    first, second = (
        run_example("follow_a_selection.py", server.address, pool, "3", "followed-round") for _ in range(2)
    )
    assert first.splitlines()[0] == second.splitlines()[0]
    assert "3 picks; the best is " in second


def test_example_compare_strategies_counts_shared_picks(server: RunningServer, pool: str) -> None:
    lines = run_example("compare_strategies.py", server.address, pool, "300").splitlines()
    assert len(lines) == 6
    assert all(line.endswith("share 300 of 300 picks") for line in lines)


def test_example_without_a_server_selects_in_this_process(data: Path, pool: str) -> None:
    (bundle,) = (data / "models").iterdir()
    ranks = [
        line.split()[0] for line in run_example("without_a_server.py", str(bundle), pool, "4").splitlines()
    ]
    assert ranks == ["1", "2", "3", "4"]


def test_example_two_rounds_trains_and_selects_twice(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the example trains, and torch is not installed")
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    rounds = run_example("two_rounds.py", str(tmp_path / "rounds")).splitlines()
    assert [line.split(",")[0] for line in rounds] == ["round 0: 60 labels", "round 1: 100 labels"]


def test_example_own_model_selects_trains_and_selects_again(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the example trains, and torch is not installed")
    from support.onnx_models import IMAGENET, classifier, saved

    model, photos, labels = saved(classifier(), tmp_path / "model.onnx"), tmp_path / "photos", {}
    photos.mkdir()
    for row, (id_, image) in enumerate(random_pool(70)):
        (photos / f"{id_}.png").write_bytes(image)
        labels[f"{id_}.png"] = ("cat", "dog")[row % 2]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    places = map(str, (model, photos, tmp_path / "labels.json", tmp_path / "rounds"))
    options = map(str, ("--features", "embedding", "--logits", "logits", *IMAGENET))
    assert run_example("own_model.py", *places, *options).splitlines() == [
        "30 photos to label, of 70",
        "30 more, without the 30 that are labelled",
    ]


def test_the_index_of_examples_lists_every_example() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in sorted(EXAMPLES.glob("*.py")) if f"({path.name})" not in index] == []
