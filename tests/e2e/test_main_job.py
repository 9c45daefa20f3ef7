"""The main job, with the commands that a user types: train, export, serve, select, inspect."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("torch", reason="the main job trains, but torch is not installed")
pytest.importorskip("sklearn", reason="the digits of the demo come with scikit-learn, which is not installed")


def topb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "topb", *arguments], capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the demo and return its output directory and what it printed."""
    out = tmp_path_factory.mktemp("e2e") / "out"
    ended = topb("demo", "--limit", "300", "--out", str(out), "--budget", "15")
    assert ended.returncode == 0, ended.stderr
    return out, ended.stdout


def test_the_demo_trains_exports_serves_and_selects(demo: tuple[Path, str]) -> None:
    out, told = demo
    (bundle,) = (out / "bundles").iterdir()

    assert re.search(r"^read 216 = scored 216 \+ skipped 0 \+ duplicate 0 \+ excluded 0$", told, re.M)
    assert len(re.findall(r"^ +\d+  digit-\d{4} +0\.\d{4}", told, re.M)) == 10
    assert re.search(r"test accuracy \d+\.\d% from 24 labels", told)
    assert str(bundle) in told
    assert {file.name for file in bundle.iterdir()} == {
        "encoder.onnx",
        "head.onnx",
        "labelled.parquet",
        "manifest.json",
    }
    with Image.open(out / "contact-sheet.png") as sheet:
        assert sheet.width > 900


def test_selecting_in_process_gives_the_picks_of_the_service(demo: tuple[Path, str]) -> None:
    out, told = demo
    (bundle,) = (out / "bundles").iterdir()
    pool = str(out / "images" / "pool.parquet")
    ended = topb("select", pool, "--bundle", str(bundle), "--budget", "15", "--json")
    assert ended.returncode == 0, ended.stderr
    picks = json.loads(ended.stdout)["picks"]
    served = re.findall(r"^ +\d+  (digit-\d{4}) +(0\.\d{4})", told, re.M)

    assert [(pick["id"], f"{pick['score']:.4f}") for pick in picks[:10]] == served


def test_a_bundle_is_shown_as_text_and_as_json(demo: tuple[Path, str]) -> None:
    (bundle,) = (demo[0] / "bundles").iterdir()
    shown, as_json = topb("model", "show", str(bundle)), topb("model", "show", str(bundle), "--json")

    assert f"model                          {bundle.name}" in shown.stdout
    manifest = json.loads(as_json.stdout)
    assert manifest["modelId"] == bundle.name
    assert {gate["name"] for gate in manifest["gates"]} >= {"score_difference", "top_b_difference"}


def test_the_demo_refuses_a_directory_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    ended = topb("demo", "--out", str(tmp_path))

    assert ended.returncode == 1
    assert "OUT_NOT_EMPTY" in ended.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
