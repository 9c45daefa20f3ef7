"""`topb info`: what a server is, and which models it has."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from topb.commands._connection import add_tls_options, open_client
from topb.commands._report import table_text
from topb.descriptions import Model, ServerInfo

_HEADER = ("model", "method", "round", "image", "classes", "labelled", "accuracy", "created")
_RIGHT_ALIGNED = {"round", "classes", "labelled", "accuracy"}


def run(argv: Sequence[str]) -> int:
    """Shows what a server is.

    Args:
        argv: the arguments after `topb info`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="topb info", description="Shows what a server is, and which models it has."
    )
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the server to ask")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="give up after S seconds (default: 10)"
    )
    add_tls_options(parser)
    options = parser.parse_args(argv)
    with open_client(options) as client:
        info, models = client.server_info(), client.list_models()
    if options.json:
        print(json.dumps(_as_json(info, models), indent=2, ensure_ascii=False))
    else:
        print(_as_text(options.server, info, models))
    return 0


def _as_json(info: ServerInfo, models: Sequence[Model]) -> dict[str, Any]:
    described = []
    for model in models:
        fields = dataclasses.asdict(model)
        fields["create_time"] = model.create_time and model.create_time.isoformat()
        described.append(fields)
    return {"server": dataclasses.asdict(info), "models": described}


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
    table = table_text(_HEADER, [_row(model) for model in models], right_aligned=_RIGHT_ALIGNED)
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
        "" if model.create_time is None else f"{model.create_time:%Y-%m-%d %H:%M}",
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.4g} MiB"
