"""Collect the reasons of errors and of skipped rows from a package's code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

# Constants that look like reasons but are environment variables or names of SQLite, the protos and WSGI.
_OTHERS = ("AWS_", "SQLITE_", "TOPB_", "RESIZE_RULE_", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD")


def reasons_in(package: ModuleType) -> set[str]:
    """Return each string constant that has the form of a reason, and each value of a `reason=` argument."""
    found = set()
    for path in Path(package.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "reason"
                and isinstance(node.value, ast.Constant)
            ):
                found.add(node.value.value)
            elif isinstance(node, ast.Constant) and re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)+", str(node.value)):
                found.add(node.value)
    return {reason for reason in found if reason and not reason.startswith(_OTHERS)}
