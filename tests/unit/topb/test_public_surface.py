from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import types
from importlib.metadata import version

import pytest

import topb
from topb import errors

pytestmark = pytest.mark.sdk


def test_dunder_all_lists_exactly_the_public_names():
    public = {
        name
        for name, value in vars(topb).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert set(topb.__all__) == public | {"__version__"}
    assert topb.__all__ == sorted(topb.__all__)


def test_the_version_is_the_version_of_the_distribution():
    assert topb.__version__ == version("topb")


def test_the_exception_tree_in_the_docstring_matches_the_classes():
    drawn = [
        line.split()[1] if line[0] in "├└" else line
        for line in errors.__doc__.splitlines()
        if line.startswith(("├", "└", "TopbError"))
    ]
    defined = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert sorted(drawn) == sorted(defined)
    assert all(getattr(errors, name).__base__ is errors.TopbError for name in drawn if name != "TopbError")
    assert set(drawn) <= set(topb.__all__)


def test_importing_the_sdk_imports_no_heavy_package():
    names = [module.name for module in pkgutil.walk_packages(topb.__path__, "topb.")]
    assert "topb.commands.select" in names
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'onnxruntime', 'PIL', 'pyarrow', 'pandas', 'topb_scorer', 'topb_trainer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
    assert all(importlib.import_module(name).__doc__ for name in names if ".v1" not in name)
