"""What the pages for newcomers name exists, so that they cannot fall behind the code."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "scorer/topb_scorer", ROOT / "trainer/topb_trainer", ROOT / "clients/python/topb")
# What a path on these pages is relative to.
BASES = (ROOT, *PACKAGES, *(package.parent for package in PACKAGES))

ARCHITECTURE = ROOT / "docs/architecture.md"
PAGES = (ARCHITECTURE, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/decisions").glob("*.md")))


def spans(page: Path, pattern: str) -> list[tuple[str, ...]]:
    """Return the groups of `pattern` in those code spans of a page that match it as a whole."""
    found = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    return [match.groups() for span in found if (match := re.fullmatch(pattern, span))]


def existing(path: str) -> list[Path]:
    return [base / path for base in BASES if (base / path).exists()]


def defines(body: Iterable[ast.AST], names: Sequence[str]) -> bool:
    """Return whether a module or class defines the first name, and that in turn the next."""
    for node in body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", node)]
        if names[0] in {getattr(target, "id", getattr(target, "name", None)) for target in targets}:
            return len(names) == 1 or defines(getattr(node, "body", []), names[1:])
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_in_the_documentation_exists(page: Path) -> None:
    paths = [path for (path,) in spans(page, r"([\w.-][\w./-]*(?:/|\.py)[\w./-]*)(?:: [\w.]+)?")]
    assert [path for path in paths if not existing(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_definition_is_in_the_named_module(page: Path) -> None:
    missing = [
        f"{path}: {name}"
        for path, name in spans(page, r"([\w./-]+\.py): ([\w.]+)")
        if not any(
            defines(ast.parse(file.read_text("utf-8")).body, name.split(".")) for file in existing(path)
        )
    ]
    assert missing == []


def test_every_name_in_the_architecture_page_is_in_the_code() -> None:
    sources = [file for package in PACKAGES for file in package.rglob("*.py")]
    words = {word for file in sources for word in re.findall(r"\w+", file.read_text("utf-8"))}
    names = {name for (name,) in spans(ARCHITECTURE, r"([A-Za-z_][\w.]*)") if not existing(name)}
    assert {name for name in names if not set(name.split(".")) <= words} == set()


@pytest.mark.parametrize("package", ["topb_scorer", "topb_trainer"])
def test_the_architecture_page_lists_the_layers_of_import_linter(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == [package])
    table = (
        ARCHITECTURE.read_text("utf-8").partition(f"| `{package}`, top to bottom |")[2].partition("\n\n")[0]
    )
    rows = [re.findall(r"`(\w+)/?`", line.split("|")[1]) for line in table.splitlines()[2:]]
    assert [set(row) for row in rows] == [set(layer.split(" | ")) for layer in layers]
