"""`topb serve`: serve a directory of bundles over gRPC."""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial
from typing import Any

import click

from topb.commands.options import Choice, Command, Option, section
from topb_scorer.commands.installation import check_installation
from topb_scorer.commands.options import catalog_url_option

_positive_option = partial(Option, type=click.IntRange(min=1))
_USABLE_CORES = "all cores, or the CPU limit if there is one"

_SERVING = [
    Option("--models DIR", "Directory of bundles.", required=True),
    Option(
        "--default-model ID",
        "Model for requests that name none.",
        default="",
        show_default="the most recent one",
    ),
    Option(
        "--listen HOST:PORT", "Address to listen on; port 0 for any free port.", default="127.0.0.1:50051"
    ),
    Option(
        "--metrics-listen HOST:PORT",
        "Address on which to serve GET /metrics for Prometheus.",
        default="",
        show_default="no metrics",
    ),
    Option(
        "--allow-root ROOT",
        "Directory, s3://bucket/prefix/ or https://host/prefix/ that pools may be read from; repeatable. "
        "Without it, only streamed pools are served.",
        multiple=True,
    ),
]
_STATE = section(
    "State",
    Option(
        "--state DIR",
        "Directory for scores, results and selections. A temporary one is deleted when the server stops.",
        show_default="temporary",
    ),
    Option(
        "--keep-features",
        "Of which encoders features are kept, so that later models with the same encoder need no images: of "
        "all, of those that training leaves as they are, or only what a set-based strategy needs.",
        type=Choice(("always", "frozen", "needed")),
        default="frozen",
    ),
    catalog_url_option(
        "Database of selections. Servers that share one --state need postgresql+psycopg://…; the default is "
        "SQLite in --state."
    ),
    Option(
        "--lease-seconds S",
        "Seconds after which other servers take over the selections of a server that is silent.",
        default=15.0,
    ),
    Option(
        "--keep-paused-days DAYS",
        "Days after which a selection ends if its caller has left and does not come back.",
        type=click.FloatRange(min=0),
        default=7.0,
    ),
)
_COMPUTE = section(
    "Devices and threads",
    Option("--device DEVICE", "cpu or cuda:INDEX.", default="cpu"),
    Option(
        "--search-device DEVICE",
        "Device on which FAISS searches for labelled images for core_set: cpu or cuda:INDEX.",
        default="cpu",
    ),
    Option(
        "--batch-size N",
        "Number of images in a batch.",
        type=click.IntRange(min=2),
        show_default="32 on a CPU, 256 on a GPU",
    ),
    _positive_option("--session-threads N", "Threads that run the model.", show_default=_USABLE_CORES),
    _positive_option("--decode-threads N", "Threads that decode images.", show_default=_USABLE_CORES),
)
_LIMITS = section(
    "Limits",
    _positive_option(
        "--max-concurrent-selections N",
        "Selections that may run at once; further ones wait in a queue.",
        default=2,
    ),
    Option(
        "--stream-idle-seconds S",
        "Seconds that a selection waits for its caller's next chunk before it gives way to others.",
        type=click.FloatRange(min=0, min_open=True),
        default=30.0,
    ),
    Option(
        "--keepalive-seconds S",
        "Seconds after which the server pings a silent caller, to detect that it is gone.",
        type=click.FloatRange(min=1),
        default=30.0,
    ),
    Option("--grace-seconds S", "Seconds that running selections may continue after SIGTERM.", default=30.0),
)


@click.command(cls=Command, params=[*_SERVING, *_STATE, *_COMPUTE, *_LIMITS])
def run(
    allow_root: tuple[str, ...],
    device: str,
    batch_size: int | None,
    session_threads: int | None,
    decode_threads: int | None,
    search_device: str,
    **options: Any,
) -> None:
    """Serve a directory of bundles over gRPC.

    The server runs until SIGTERM or SIGINT. Then it refuses new selections, gives running ones the grace
    period to end, and interrupts the rest, which can be continued later.
    """
    check_installation()
    # These imports must follow the check, because they may fail if both onnxruntime packages are installed.
    from topb_scorer.engines.local import EngineSettings
    from topb_scorer.pools import AllowedRoots
    from topb_scorer.selecting.settings import SelectingSettings
    from topb_scorer.service.server import serve
    from topb_scorer.service.settings import ServerSettings

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    settings = ServerSettings(
        roots=AllowedRoots.below(allow_root),
        engine=EngineSettings(
            device=device,
            batch_size=batch_size,
            session_threads=session_threads,
            decode_threads=decode_threads,
        ),
        selecting=SelectingSettings(search_device=search_device),
        **options,
    )
    host = settings.listen.rpartition(":")[0]

    def ready(port: int) -> None:
        print(f"topb is ready on {host}:{port}", flush=True)

    asyncio.run(serve(settings, on_ready=ready))
