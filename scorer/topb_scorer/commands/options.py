"""Options that several of the scorer's commands take."""

from __future__ import annotations

import math
from typing import Any

import click

from topb.commands.options import Option


class Days(click.FloatRange):
    """A number of days that is at least 0, as seconds."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; NaN is refused, because nothing is older or younger than NaN."""
        days = float(super().convert(value, param, ctx))
        if math.isnan(days):
            self.fail(f"{value} is not a number.", param, ctx)
        return days * 86400


def catalog_url_option(help: str) -> Option:
    """Return the option `--catalog-url`, which may come from the environment."""
    # The URL may hold a password, which a command line shows to every user of the machine.
    return Option(
        "--catalog-url URL", help, envvar="TOPB_CATALOG_URL", show_envvar=True, default="", show_default=False
    )


STATE = Option("--state DIR", "State directory of the servers.", required=True)
CATALOG_OF_STATE = catalog_url_option("Catalog of the servers, if it is not in --state.")
DRY_RUN = Option("--dry-run", "Only say what would be deleted.")
