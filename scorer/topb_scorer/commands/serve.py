"""`topb serve`: serves a directory of bundles over gRPC."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from topb_scorer.scoring.installation import check_onnxruntime


def run(argv: Sequence[str]) -> int:
    """Serves until SIGTERM or SIGINT; 0 after a clean drain.

    Raises:
        ScorerError: the server cannot start.
    """
    arguments = _parser().parse_args(argv)
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
        models=arguments.models,
        listen=arguments.listen,
        metrics_listen=arguments.metrics_listen,
        roots=AllowedRoots.below(arguments.allow_root),
        engine=EngineSettings(
            device=arguments.device,
            batch_size=arguments.batch_size,
            session_threads=arguments.session_threads,
            decode_threads=arguments.decode_threads,
        ),
        selecting=SelectingSettings(search_device=arguments.search_device),
        default_model=arguments.default_model,
        grace_seconds=arguments.grace_seconds,
        max_concurrent_selections=arguments.max_concurrent_selections,
        state=arguments.state,
        catalog_url=arguments.catalog_url,
        lease_seconds=arguments.lease_seconds,
    )
    host = arguments.listen.rpartition(":")[0]

    def ready(port: int) -> None:
        print(f"topb is ready on {host}:{port}", flush=True)

    asyncio.run(serve(settings, on_ready=ready))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="topb serve", description="Serve a directory of bundles over gRPC.")
    parser.add_argument("--models", type=Path, required=True, help="directory of bundles")
    parser.add_argument("--listen", default="127.0.0.1:50051", help="host:port; port 0 takes a free one")
    parser.add_argument(
        "--metrics-listen",
        default="",
        metavar="HOST:PORT",
        help="answers GET /metrics there, for Prometheus; default: no metrics",
    )
    parser.add_argument(
        "--allow-root",
        action="append",
        default=[],
        metavar="ROOT",
        help="directory, s3://bucket/prefix/ or https://host/prefix/ that may be read from, again for more; "
        "with none, only streamed pools",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:<index>")
    parser.add_argument(
        "--search-device",
        default="cpu",
        help="where FAISS searches for what core_set starts from: cpu, or cuda:<index> with faiss-gpu",
    )
    parser.add_argument("--default-model", default="", help="model id; default: the most recent one")
    parser.add_argument(
        "--batch-size", type=_at_least(2), help="images a run; default: 32 on CPU, 256 on GPU"
    )
    parser.add_argument(
        "--session-threads",
        type=_at_least(1),
        help="threads of one run; default: all cores, or as many as a CPU limit grants",
    )
    parser.add_argument("--decode-threads", type=_at_least(1), help="default: as above")
    parser.add_argument("--max-concurrent-selections", type=_at_least(1), default=2)
    parser.add_argument("--grace-seconds", type=float, default=30.0, help="for what runs at SIGTERM")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="keeps scores, results and selections under way; default: a temporary one, gone with the server",
    )
    parser.add_argument(
        "--catalog-url",
        # From the environment, a password is in no command line.
        default=os.environ.get("TOPB_CATALOG_URL", ""),
        metavar="URL",
        help="postgresql+psycopg://… for several servers on one state; default: the environment's "
        "TOPB_CATALOG_URL, or else SQLite in --state",
    )
    parser.add_argument(
        "--lease-seconds",
        type=float,
        default=15.0,
        help="how long a server may be silent before others take its selections up",
    )
    return parser


def _at_least(least: int):  # type: ignore[no-untyped-def]
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}; expected at least {least}")
        return value

    return number
