from __future__ import annotations

import re
from pathlib import Path

import pytest

import topb
from support.reasons import reasons_in
from topb import _rpc_errors, errors

pytestmark = pytest.mark.sdk

DOCS = Path(__file__).parents[3] / "docs"


def test_the_documented_exception_tree_is_the_actual_one():
    tree = errors.__doc__.partition("\n\n")[2].strip()
    assert tree in (DOCS / "errors.md").read_text(encoding="utf-8")


def test_the_documented_status_codes_match_the_client():
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z_, ]+) \| `(\w+)` \|$", text, re.MULTILINE)
    documented = {code: name for codes, name in rows for code in codes.split(", ")}
    assert documented == {code.name: kind.__name__ for code, kind in _rpc_errors.EXCEPTIONS.items()}


def test_every_reason_of_the_client_is_documented():
    listed = re.findall(r"^\| ([A-Z_]+) \| `\w+` \| \S", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert set(listed) == reasons_in(topb)
