"""Progress bars of long work: on standard error, and only where a person looks at it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def bar(items: Iterable[Item], what: str, unit: str, *, show: bool, total: int | None = None) -> tqdm[Item]:
    """Returns `items` with a bar that moves as they are taken; none off a terminal, or unless `show`."""
    return tqdm(items, desc=what, unit=unit, total=total, disable=None if show else True, dynamic_ncols=True)
