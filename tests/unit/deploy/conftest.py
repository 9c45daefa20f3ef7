"""Copies of the deployment files, to break."""

import shutil
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
# Where `deploy/check.py` finds its own modules.
sys.path.insert(0, str(REPOSITORY / "deploy"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what the check reads."""
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".dockerignore"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for name in ("clients", "scorer", "trainer"):
        (tmp_path / name).mkdir()
    return tmp_path


class Breaker:
    """Breaks a file of the copy."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}: the test breaks nothing"
        path.write_text(text.replace(old, new))


@pytest.fixture
def replace(repository: Path) -> Breaker:
    """Replaces text, which must be there, in a file of the copy."""
    return Breaker(repository)
