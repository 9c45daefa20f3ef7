"""Run the tests of one module again in another module, with another fixture."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType


def repeated_with(fixture: str, module: ModuleType) -> dict[str, Callable[..., None]]:
    """Return the tests of `module` that use the fixture, by name.

    A module that adds them to its globals runs them again with its own fixture of that name.
    """
    tests = {name: value for name, value in vars(module).items() if name.startswith("test_")}
    return {name: test for name, test in tests.items() if fixture in inspect.signature(test).parameters}
