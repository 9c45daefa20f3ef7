"""`topb select`: the images of a pool that are most worth labelling, from a server or in this process."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from topb.client import Client
from topb.commands._connection import add_tls_options, open_client
from topb.commands._failures import MissingPackageError, UsageError
from topb.commands._picks_file import check_picks_file
from topb.commands._progress_line import ProgressLine
from topb.commands._result_output import classes_at_server, show_result
from topb.progress import Progress
from topb.results import SelectionResult
from topb.selection_request import ExcludeFile

_SERVER_ONLY = (
    "model",
    "timeout",
    "request_id",
    "detach",
    "tls_ca",
    "tls_certificate",
    "tls_key",
    "tls_server_name",
)
_BUNDLE_ONLY = ("device", "batch_size")

_ProgressCallback = Callable[[Progress], None]


def run(argv: Sequence[str]) -> int:
    """Selects, and shows or writes the result.

    Args:
        argv: the arguments after `topb select`.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(argv)
    _check(options)
    if options.detach:
        return _submit(options)
    with contextlib.ExitStack() as stack:
        progress: _ProgressCallback | None = None
        if sys.stderr.isatty() and not options.quiet:
            progress = stack.enter_context(ProgressLine(sys.stderr))
        wants_classes = not options.json and not options.quiet
        if options.server is not None:
            client = stack.enter_context(open_client(options))
            result = _select_at_server(client, options, progress)
            classes = classes_at_server(client, result.model) if wants_classes else ()
        else:
            result = _select_in_process(options, progress)
            classes = _classes_of_bundle(options.bundle) if wants_classes else ()
    show_result(result, classes=classes, out=options.out, as_json=options.json, quiet=options.quiet)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="topb select",
        description="Selects the images of a pool that are most worth labelling next.",
        epilog="Example: topb select pool.parquet --budget 2500 --server localhost:50051 --out picks.parquet",
    )
    parser.add_argument("pool", metavar="POOL", help="path, glob, or s3:// URI, as the scorer sees it")
    parser.add_argument(
        "--budget", "-b", type=int, required=True, metavar="N", help="how many images to pick"
    )
    scorer = parser.add_mutually_exclusive_group(required=True)
    scorer.add_argument("--server", metavar="HOST:PORT", help="the server that scores")
    scorer.add_argument("--bundle", type=Path, metavar="DIR", help="score in this process, with this bundle")

    what = parser.add_argument_group("what to select")
    what.add_argument("--strategy", default="aalu", help="query strategy (default: %(default)s)")
    what.add_argument(
        "--strategy-option", action="append", default=[], metavar="NAME=VALUE", help="may be given again"
    )
    what.add_argument("--model", metavar="ID", help="model of the server (default: the server's)")
    what.add_argument("--seed", type=int, default=0, help="for strategies that draw at random (default: 0)")
    what.add_argument(
        "--exclude",
        metavar="FILE",
        help="ids to leave out: a .parquet file that the scorer reads, or a text file here, one id a line",
    )
    what.add_argument("--exclude-column", default="id", metavar="NAME", help="of that Parquet (default: id)")

    layout = parser.add_argument_group("how the pool is laid out")
    layout.add_argument(
        "--format", choices=("parquet", "image-folder", "webdataset", "csv"), help="default: the scorer looks"
    )
    layout.add_argument("--id-column", default="id", metavar="NAME", help="default: %(default)s")
    layout.add_argument("--image-column", default="image", metavar="NAME", help="default: %(default)s")
    layout.add_argument("--path-column", default="path", metavar="NAME", help="default: %(default)s")

    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    output.add_argument("--out", type=Path, metavar="FILE", help="write all picks to .parquet or .csv")
    output.add_argument("--quiet", "-q", action="store_true", help="no progress and no table")

    server = parser.add_argument_group("with --server")
    server.add_argument("--timeout", type=float, metavar="S", help="give up after this many seconds")
    server.add_argument(
        "--request-id",
        metavar="ID",
        help="the same ID again goes on with the selection, or fetches its result",
    )
    server.add_argument(
        "--detach",
        action="store_true",
        default=None,
        help="print the selection's id and leave it to the server: see topb selections",
    )
    in_process = parser.add_argument_group("with --bundle")
    in_process.add_argument("--device", help='"cpu" or "cuda:0" (default: cpu)')
    in_process.add_argument(
        "--batch-size", type=int, metavar="N", help="images a run (default: the device's)"
    )
    add_tls_options(parser)
    return parser


def _check(options: argparse.Namespace) -> None:
    """Raises what can be known to be wrong before anything is scored."""
    misplaced = _SERVER_ONLY if options.server is None else _BUNDLE_ONLY
    given = [name for name in misplaced if getattr(options, name) is not None]
    if options.server is None and options.tls:
        given.append("tls")
    if given:
        where = "--server" if options.server is None else "--bundle"
        raise UsageError(f"--{given[0].replace('_', '-')} goes with {where}")
    if options.out is not None:
        check_picks_file(options.out)
    if options.detach and options.out is not None:
        raise UsageError(
            "--out goes with a selection that is waited for; topb selections result writes it later"
        )


def _submit(options: argparse.Namespace) -> int:
    arguments = _arguments_at_server(options)
    with open_client(options) as client:
        handle = client.submit(options.pool, options.budget, **arguments)
    if options.json:
        print(json.dumps({"selection": handle.id, "request_id": handle.request_id}, indent=2))
    else:
        print(handle.id)
    return 0


def _select_at_server(
    client: Client, options: argparse.Namespace, progress: _ProgressCallback | None
) -> SelectionResult:
    arguments = _arguments_at_server(options)
    return client.select_batch(options.pool, options.budget, **arguments, progress=progress)


def _arguments_at_server(options: argparse.Namespace) -> dict[str, Any]:
    """What `Client.select_batch` and `Client.submit` take by name."""
    exclude: ExcludeFile | list[str] | None = None
    if _is_parquet(options.exclude):
        exclude = ExcludeFile(options.exclude, options.exclude_column)
    elif options.exclude is not None:
        exclude = _ids_in(options.exclude)
    return {
        "strategy": options.strategy,
        "model": options.model,
        "exclude": exclude,
        "seed": options.seed,
        "strategy_options": _strategy_options(options),
        "format": options.format,
        "id_column": options.id_column,
        "image_column": options.image_column,
        "path_column": options.path_column,
        "request_id": options.request_id,
    }


def _select_in_process(options: argparse.Namespace, progress: _ProgressCallback | None) -> SelectionResult:
    in_parquet = _is_parquet(options.exclude)
    listed = [] if options.exclude is None or in_parquet else _ids_in(options.exclude)
    try:
        (engine,) = entry_points(group="topb.engines", name="in_process")
        result: SelectionResult = engine.load()(
            options.pool,
            options.budget,
            bundle=options.bundle,
            strategy=options.strategy,
            seed=options.seed,
            exclude=listed,
            exclude_uri=options.exclude if in_parquet else None,
            exclude_column=options.exclude_column,
            strategy_options=_strategy_options(options),
            format=options.format,
            id_column=options.id_column,
            image_column=options.image_column,
            path_column=options.path_column,
            device=options.device or "cpu",
            batch_size=options.batch_size,
            progress=progress,
        )
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "topb select --bundle", error, needs="the scorer", extra="scorer"
        ) from error
    return result


def _classes_of_bundle(bundle: Path) -> Sequence[str]:
    manifest: Any = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    return [str(name) for name in manifest.get("classes", [])]


def _strategy_options(options: argparse.Namespace) -> dict[str, str]:
    pairs = [option.partition("=") for option in options.strategy_option]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise UsageError(f"--strategy-option {name}{equals}: expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _is_parquet(exclude: str | None) -> bool:
    return exclude is not None and exclude.endswith(".parquet")


def _ids_in(file: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UsageError(f"--exclude {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--exclude {file}: not a text file in UTF-8") from error
    return [line for line in lines if line]
