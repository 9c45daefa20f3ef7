from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from topb_scorer.commands.installation import check_installation
from topb_scorer.errors import InstallationError

pytestmark = pytest.mark.scorer


def install(site: Path, *names: str) -> None:
    for name in names:
        folder = site / f"{name.replace('-', '_')}-1.20.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.20.0\n")


def test_the_packages_of_this_environment_are_accepted() -> None:
    check_installation()


@pytest.mark.parametrize("onnxruntime", ["onnxruntime", "onnxruntime-gpu"])
@pytest.mark.parametrize("faiss", ["faiss-cpu", "faiss-gpu-cu12"])
def test_one_package_of_each_pair_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxruntime: str, faiss: str
) -> None:
    install(tmp_path, onnxruntime, faiss)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    check_installation()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "SCORER_NOT_INSTALLED"),
        (("onnxruntime",), "SCORER_NOT_INSTALLED"),
        (("faiss-cpu",), "SCORER_NOT_INSTALLED"),
        (("onnxruntime", "onnxruntime-gpu", "faiss-cpu"), "ONNXRUNTIME_TWICE"),
        (("onnxruntime-gpu", "faiss-cpu", "faiss-gpu-cu12"), "FAISS_TWICE"),
        (("onnxruntime-gpu", "faiss-cpu", "faiss-gpu"), "FAISS_TWICE"),
    ],
)
def test_missing_and_clashing_packages_are_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], reason: str
) -> None:
    install(tmp_path, *names)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InstallationError, match=r"topb\[scorer\]") as caught:
        check_installation()
    assert caught.value.reason == reason


def test_the_extra_for_gpus_installs_the_package_of_faiss_for_gpus() -> None:
    """The trainer's extras for GPUs contain it."""
    extras = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    needed = extras["optional-dependencies"]
    named = {extra: {re.split(r"[<>=\[]", name)[0] for name in needed[extra]} for extra in needed}
    assert {"onnxruntime", "faiss-cpu"} <= named["scorer"]
    assert {"onnxruntime-gpu", "faiss-gpu-cu12"} <= named["scorer-gpu"]
    assert named["scorer"] & named["scorer-gpu"] == {"topb"}
