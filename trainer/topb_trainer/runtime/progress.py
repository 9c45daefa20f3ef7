"""Progress bars for long loops."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def bar(
    items: Iterable[Item], description: str, unit: str, *, show: bool, total: int | None = None
) -> tqdm[Item]:
    """Return `items` with a progress bar on standard error.

    The bar is hidden unless `show` is true and standard error is a terminal.
    """
    return tqdm(
        items,
        desc=description,
        unit=unit,
        total=total,
        disable=None if show else True,  # None lets tqdm decide: it is silent off a terminal
        dynamic_ncols=True,
    )
