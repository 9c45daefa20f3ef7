from __future__ import annotations

import sys
from pathlib import Path

import pytest

from topb_scorer.commands.installation import check_onnxruntime
from topb_scorer.errors import InstallationError

pytestmark = pytest.mark.scorer


def install(site: Path, *names: str) -> None:
    for name in names:
        folder = site / f"{name.replace('-', '_')}-1.20.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.20.0\n")


def test_the_onnxruntime_package_of_this_environment_is_accepted() -> None:
    check_onnxruntime()


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu"])
def test_either_onnxruntime_package_alone_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    install(tmp_path, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    check_onnxruntime()


@pytest.mark.parametrize(
    ("names", "reason"),
    [((), "SCORER_NOT_INSTALLED"), (("onnxruntime", "onnxruntime-gpu"), "ONNXRUNTIME_TWICE")],
)
def test_neither_or_both_onnxruntime_packages_are_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], reason: str
) -> None:
    install(tmp_path, *names)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InstallationError, match=r"topb\[scorer\]") as caught:
        check_onnxruntime()
    assert caught.value.reason == reason
