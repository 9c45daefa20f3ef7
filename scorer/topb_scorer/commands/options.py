"""Options that several of the scorer's commands take."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from topb.commands.options import Decorated, option

DAY_SECONDS = 86400.0


class NotNegative(click.FloatRange):
    """A number that is at least 0."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; NaN is refused, because nothing is older or younger than NaN."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


def state_option() -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds `--state`, the state directory of servers."""
    return option(
        "--state",
        type=click.Path(path_type=Path),
        required=True,
        metavar="DIR",
        help="State directory of the servers.",
    )


def catalog_url_option(help: str, *, section: str = "Options") -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds `--catalog-url`, which may come from the environment."""
    # The URL may hold a password, which a command line shows to every user of the machine.
    return option(
        "--catalog-url",
        envvar="TOPB_CATALOG_URL",
        show_envvar=True,
        default="",
        show_default=False,
        metavar="URL",
        section=section,
        help=help,
    )


def catalog_of_state_option() -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds `--catalog-url` to a command that works on the state of servers."""
    return catalog_url_option("Catalog of the servers, if it is not in --state.")


def dry_run_option() -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds `--dry-run`."""
    return option("--dry-run", is_flag=True, help="Only say what would be deleted.")
