"""`topb info`: a server, its limits and its models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import click

from topb.commands._connection import connection_options, open_client
from topb.commands.options import Command, json_option
from topb.commands.output import minute, print_json, table_text
from topb.descriptions import Model, ServerInfo

_HEADER = ("model", "method", "round", "image", "classes", "labelled", "accuracy", "created")
_RIGHT_ALIGNED = {"round", "classes", "labelled", "accuracy"}


@click.command(cls=Command)
@connection_options(timeout=10.0)
@json_option()
def run(as_json: bool, **connection: Any) -> None:
    """Show a server, its limits and its models."""
    options = SimpleNamespace(**connection)
    with open_client(options) as client:
        info, models = client.server_info(), client.list_models()
    if as_json:
        print_json({"server": dataclasses.asdict(info), "models": [_as_dict(model) for model in models]})
    else:
        print(_as_text(options.server, info, models))


def _as_dict(model: Model) -> dict[str, Any]:
    return {**dataclasses.asdict(model), "create_time": model.create_time and model.create_time.isoformat()}


def _as_text(address: str, info: ServerInfo, models: Sequence[Model]) -> str:
    limits = info.limits
    lines = [
        f"topb {info.version} at {address}",
        f"  devices     {', '.join(info.devices)}",
        f"  strategies  {', '.join(info.strategies)}",
        f"  limits      budget {limits.max_budget:,}; {limits.max_concurrent_selections} selections at once; "
        f"chunks of {_mebibytes(limits.max_chunk_bytes)}",
        f"              images of {_mebibytes(limits.max_image_bytes)} and {limits.max_image_pixels:,} "
        f"pixels; {limits.max_images_per_score_call} in one call to score",
        "",
    ]
    if not models:
        return "\n".join([*lines, "No models."])
    table = table_text(_HEADER, map(_row, models), right_aligned=_RIGHT_ALIGNED)
    default = ["", "* the default model"] if any(model.is_default for model in models) else []
    return "\n".join([*lines, table, *default])


def _row(model: Model) -> tuple[str, ...]:
    return (
        f"{model.id} *" if model.is_default else model.id,
        model.method,
        str(model.round),
        f"{model.input.height}×{model.input.width}",
        str(len(model.classes)),
        f"{model.labelled_count:,}",
        "" if model.test_accuracy is None else f"{model.test_accuracy:.1%}",
        minute(model.create_time),
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.4g} MiB"
