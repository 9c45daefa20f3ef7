from __future__ import annotations

import sys
from pathlib import Path

import pytest

from topb_scorer.commands.installation import check_onnxruntime
from topb_scorer.errors import InstallationError

pytestmark = pytest.mark.scorer


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages are looked for here alone."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def add(site: Path, name: str) -> None:
    folder = site / f"{name.replace('-', '_')}-1.20.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.20.0\n")


def test_the_packages_of_this_environment_fit() -> None:
    check_onnxruntime()


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu"])
def test_one_of_the_two_fits(install: Path, name: str) -> None:
    add(install, name)
    check_onnxruntime()


def test_neither_is_an_error_that_says_what_to_install(install: Path) -> None:
    with pytest.raises(InstallationError, match=r"pip install 'topb\[scorer\]'") as caught:
        check_onnxruntime()
    assert caught.value.reason == "SCORER_NOT_INSTALLED"


def test_both_are_an_error_that_says_what_to_remove(install: Path) -> None:
    add(install, "onnxruntime")
    add(install, "onnxruntime-gpu")
    with pytest.raises(InstallationError, match="uninstall both") as caught:
        check_onnxruntime()
    assert caught.value.reason == "ONNXRUNTIME_TWICE"
