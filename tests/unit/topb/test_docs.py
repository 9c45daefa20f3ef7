from __future__ import annotations

import re
from pathlib import Path

import pytest

import topb
from support.reasons import reasons_in
from topb import _rpc_errors, errors

pytestmark = pytest.mark.sdk

DOCS = Path(__file__).parents[3] / "docs"


def test_the_guide_draws_the_exception_tree_as_it_is():
    tree = errors.__doc__.partition("\n\n")[2].strip()
    assert tree in (DOCS / "errors.md").read_text(encoding="utf-8")


def test_the_guide_maps_every_code_as_the_client_does():
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z_, ]+) \| `(\w+)` \|$", text, re.MULTILINE)
    documented = {code: name for codes, name in rows for code in codes.split(", ")}
    assert documented == {code.name: kind.__name__ for code, kind in _rpc_errors.EXCEPTIONS.items()}


def test_the_guide_lists_every_reason_of_the_client():
    listed = re.findall(r"^\| ([A-Z_]+) \| `\w+` \| \S", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert set(listed) == reasons_in(topb)
