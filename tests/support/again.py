"""Tests that run again on another kind of server."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType


def repeated_with(fixture: str, module: ModuleType) -> dict[str, Callable[..., None]]:
    """Return the tests of a module that ask for the fixture, by name, for the globals of another module."""
    tests = {name: value for name, value in vars(module).items() if name.startswith("test_")}
    return {name: test for name, test in tests.items() if fixture in inspect.signature(test).parameters}
