"""`topb serve`: serve a directory of bundles over gRPC."""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from topb.commands.options import Command, option
from topb_scorer.commands.installation import check_onnxruntime
from topb_scorer.commands.options import catalog_url_option

_PATH = click.Path(path_type=Path)
_AT_LEAST_1, _AT_LEAST_2 = click.IntRange(min=1), click.IntRange(min=2)
_STATE = "State"
_state_option = partial(option, section=_STATE)
_compute_option = partial(option, section="Devices and threads")
_limit_option = partial(option, section="Limits")


@click.command(cls=Command)
@option("--models", type=_PATH, required=True, metavar="DIR", help="Directory of bundles.")
@option(
    "--default-model",
    default="",
    show_default="the most recent one",
    metavar="ID",
    help="Model of requests that name none.",
)
@option("--listen", default="127.0.0.1:50051", metavar="HOST:PORT", help="Address; port 0 picks a free one.")
@option(
    "--metrics-listen",
    default="",
    show_default="no metrics",
    metavar="HOST:PORT",
    help="Address at which GET /metrics answers, for Prometheus.",
)
@option(
    "--allow-root",
    multiple=True,
    metavar="ROOT",
    help="Directory, s3://bucket/prefix/ or https://host/prefix/ that pools may be read from; repeatable. "
    "Without it, only streamed pools are served.",
)
@_state_option(
    "--state",
    type=_PATH,
    metavar="DIR",
    show_default="temporary",
    help="Directory for scores, results and selections. A temporary one is deleted when the server stops.",
)
@catalog_url_option(
    "Database of selections. Several servers share one --state through postgresql+psycopg://…; without this "
    "option it is SQLite in --state.",
    section=_STATE,
)
@_state_option(
    "--lease-seconds",
    type=float,
    default=15.0,
    metavar="S",
    help="How long a server may be silent before other servers take over its selections.",
)
@_compute_option("--device", default="cpu", metavar="DEVICE", help="cpu or cuda:INDEX.")
@_compute_option(
    "--search-device",
    default="cpu",
    metavar="DEVICE",
    help="Device on which FAISS searches labelled images for core_set: cpu, or cuda:INDEX with faiss-gpu.",
)
@_compute_option(
    "--batch-size",
    type=_AT_LEAST_2,
    metavar="N",
    show_default="32 on a CPU, 256 on a GPU",
    help="Images in one run of the model.",
)
@_compute_option(
    "--session-threads",
    type=_AT_LEAST_1,
    metavar="N",
    show_default="all cores, or as many as a CPU limit grants",
    help="Threads of one run of the model.",
)
@_compute_option(
    "--decode-threads",
    type=_AT_LEAST_1,
    metavar="N",
    show_default="all cores, or as many as a CPU limit grants",
    help="Threads that decode images.",
)
@_limit_option(
    "--max-concurrent-selections",
    type=_AT_LEAST_1,
    default=2,
    metavar="N",
    help="Selections that run at once; further ones are told when to retry.",
)
@_limit_option(
    "--grace-seconds",
    type=float,
    default=30.0,
    metavar="S",
    help="How long running selections may continue after SIGTERM.",
)
def run(**parameters: Any) -> None:
    """Serve a directory of bundles over gRPC.

    The server runs until SIGTERM or SIGINT. Then it accepts no selections and checkpoints those that run.
    """
    options = SimpleNamespace(**parameters)
    check_onnxruntime()
    # After the check: with two onnxruntime packages installed the import itself may fail.
    from topb_scorer.engines.local import EngineSettings
    from topb_scorer.pools import AllowedRoots
    from topb_scorer.selecting.settings import SelectingSettings
    from topb_scorer.service.server import serve
    from topb_scorer.service.settings import ServerSettings

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    settings = ServerSettings(
        models=options.models,
        listen=options.listen,
        metrics_listen=options.metrics_listen,
        roots=AllowedRoots.below(options.allow_root),
        engine=EngineSettings(
            device=options.device,
            batch_size=options.batch_size,
            session_threads=options.session_threads,
            decode_threads=options.decode_threads,
        ),
        selecting=SelectingSettings(search_device=options.search_device),
        default_model=options.default_model,
        grace_seconds=options.grace_seconds,
        max_concurrent_selections=options.max_concurrent_selections,
        state=options.state,
        catalog_url=options.catalog_url,
        lease_seconds=options.lease_seconds,
    )
    host = options.listen.rpartition(":")[0]

    def ready(port: int) -> None:
        print(f"topb is ready on {host}:{port}", flush=True)

    asyncio.run(serve(settings, on_ready=ready))
