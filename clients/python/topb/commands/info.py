"""The `topb info` command, which shows a server, its limits and its models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import click

from topb.commands._connection import connection_options, open_client
from topb.commands.options import JSON, Command
from topb.commands.output import minute, print_json, table_text
from topb.descriptions import Model, ServerInfo


@click.command(cls=Command, params=[*connection_options(timeout=10.0), JSON])
def run(as_json: bool, **connection: Any) -> None:
    """Show a server, its limits and its models."""
    with open_client(connection) as client:
        info, models = client.server_info(), client.list_models()
    if as_json:
        print_json({"server": dataclasses.asdict(info), "models": [_as_dict(model) for model in models]})
    else:
        print(_as_text(connection["server"], info, models))


def _as_dict(model: Model) -> dict[str, Any]:
    return {**dataclasses.asdict(model), "create_time": model.create_time and model.create_time.isoformat()}


def _as_text(address: str, info: ServerInfo, models: Sequence[Model]) -> str:
    limits = info.limits
    rows = f" and {limits.max_chunk_rows:,} images" if limits.max_chunk_rows else ""
    lines = [
        f"topb {info.version} at {address}",
        f"  devices     {', '.join(info.devices)}",
        f"  strategies  {', '.join(_with_models(name, models) for name in info.strategies)}",
        f"  limits      budget {limits.max_budget:,}; {limits.max_concurrent_selections} selections at once; "
        f"chunks of {_mebibytes(limits.max_chunk_bytes)}{rows}",
        f"              images of {_mebibytes(limits.max_image_bytes)} and {limits.max_image_pixels:,} "
        f"pixels; {limits.max_images_per_score_call} in one call to score",
        "",
    ]
    if not models:
        return "\n".join([*lines, "No models."])
    numbers = {"round", "classes", "labelled", "accuracy"}
    table = table_text([_row(model) for model in models], right_aligned=numbers)
    default = ["", "* the default model"] if any(model.is_default for model in models) else []
    return "\n".join([*lines, table, *default])


def _with_models(strategy: str, models: Sequence[Model]) -> str:
    """Return the name of a strategy, followed by the models that can serve it unless all of them can."""
    saying = [model for model in models if model.served_strategies]
    serving = [model.id for model in saying if strategy in model.served_strategies]
    if len(serving) == len(saying):
        return strategy
    return f"{strategy} ({', '.join(serving) or 'no model'})"


def _row(model: Model) -> dict[str, str]:
    return {
        "model": f"{model.id} *" if model.is_default else model.id,
        "method": model.method,
        "round": str(model.round),
        "image": f"{model.input.height}×{model.input.width}",
        "classes": str(len(model.classes)),
        "labelled": f"{model.labelled_count:,}",
        "accuracy": "" if model.test_accuracy is None else f"{model.test_accuracy:.1%}",
        "created": minute(model.create_time),
    }


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.4g} MiB"
