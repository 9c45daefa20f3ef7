"""Define options that several of the scorer's commands have in common."""

from __future__ import annotations

import math
from typing import Any

import click

from topb.commands.options import Option


class Days(click.FloatRange):
    """An option type that takes a number of days, at least 0, and converts it to seconds."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of seconds. NaN is refused, because it cannot be compared with an age."""
        days = float(super().convert(value, param, ctx))
        if math.isnan(days):
            self.fail(f"{value} is not a number.", param, ctx)
        return days * 86400


def catalog_url_option(help: str) -> Option:
    """Return the option `--catalog-url`, which can also be set in the environment."""
    # The URL may contain a password, and command lines are visible to every user of the machine.
    return Option(
        "--catalog-url URL", help, envvar="TOPB_CATALOG_URL", show_envvar=True, default="", show_default=False
    )


STATE = Option("--state DIR", "State directory of the servers.", required=True)
CATALOG_OF_STATE = catalog_url_option("Catalog of the servers, if it is not in --state.")
DRY_RUN = Option("--dry-run", "Report what would be deleted, but delete nothing.")
