"""`topb select`: the images of a pool that are most worth labelling, from a server or in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
from click.core import ParameterSource

from topb.commands._connection import TLS_PARAMETERS, open_client, server_option, timeout_option, tls_options
from topb.commands._failures import MissingPackageError
from topb.commands._result_output import classes_at_server, result_options, show_result, shown_progress
from topb.commands.options import Choice, Command, option
from topb.commands.output import print_json
from topb.pools import ExcludeFile, Pool
from topb.progress import Progress
from topb.results import SelectionResult

_SERVER_ONLY = ("model", "timeout", "request_id", "detach", *TLS_PARAMETERS)
_BUNDLE_ONLY = ("device", "batch_size")
_WITH_SERVER = "With --server"
_what_option = partial(option, section="What to select")
_layout_option = partial(option, section="Layout of the pool")
_server_option = partial(option, section=_WITH_SERVER)
_bundle_option = partial(option, section="With --bundle")

_ProgressCallback = Callable[[Progress], None]


def _parsed_strategy_options(
    _context: click.Context, _option: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.UsageError(f"--strategy-option {name}{equals}: expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


@click.command(
    cls=Command,
    epilog="Example: topb select pool.parquet --budget 2500 --server localhost:50051 --out picks.parquet",
)
@click.argument("pool", metavar="POOL", type=click.Path())
@option("--budget", "-b", type=int, required=True, metavar="N", help="Number of images to pick.")
@server_option(required=False)
@option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Score in this process, with this bundle, instead of at a server.",
)
@_what_option("--strategy", default="aalu", metavar="NAME", help="Query strategy.")
@_what_option(
    "--strategy-option",
    "strategy_options",
    multiple=True,
    callback=_parsed_strategy_options,
    metavar="NAME=VALUE",
    help="Option of the strategy; repeatable.",
)
@_what_option("--model", metavar="ID", show_default="the server's default model", help="Model of the server.")
@_what_option("--seed", type=int, default=0, help="Seed of strategies that draw at random.")
@_what_option(
    "--exclude",
    type=click.Path(),
    metavar="FILE",
    help="Ids to leave out: a .parquet file that the scorer reads, or a local text file, one id per line.",
)
@_what_option(
    "--exclude-column",
    default="id",
    metavar="NAME",
    help="Column with the ids, if --exclude is a Parquet file.",
)
@_layout_option(
    "--format",
    type=Choice(["parquet", "image-folder", "webdataset", "csv"]),
    show_default="detected by the scorer",
    help="Format of the pool.",
)
@_layout_option("--id-column", default="id", metavar="NAME", help="Column with the ids.")
@_layout_option("--image-column", default="image", metavar="NAME", help="Column with encoded images.")
@_layout_option("--path-column", default="path", metavar="NAME", help="Column with the paths of image files.")
@result_options("Output")
@timeout_option(None, section=_WITH_SERVER)
@_server_option(
    "--request-id",
    metavar="ID",
    help="Name of this request. Repeating it resumes the selection, or fetches its result.",
)
@_server_option(
    "--detach", is_flag=True, help="Print the selection's id and leave it to the server; see topb selections."
)
@_bundle_option("--device", default="cpu", metavar="DEVICE", help='"cpu" or "cuda:0".')
@_bundle_option(
    "--batch-size",
    type=int,
    metavar="N",
    show_default="depends on the device",
    help="Images in one run of the model.",
)
@tls_options()
@click.pass_context
def run(context: click.Context, /, **parameters: Any) -> None:
    """Select the images of a pool that are most worth labelling next.

    POOL is a path, a glob or an s3:// URI, as the scorer sees it. Give --server (or set TOPB_SERVER) to score
    at a server, or --bundle to score in this process.
    """
    options = SimpleNamespace(**parameters)
    _check(context, options)
    if options.detach:
        _submit(options)
        return
    wants_classes = not options.as_json and not options.quiet
    classes: Sequence[str] = ()
    with shown_progress(quiet=options.quiet) as progress:
        if options.bundle is not None:
            result = _select_in_process(options, progress)
            classes = _classes_of_bundle(options.bundle) if wants_classes else ()
        else:
            with open_client(options) as client:
                arguments = _arguments_at_server(options)
                result = client.select_batch(_pool(options), options.budget, **arguments, progress=progress)
                classes = classes_at_server(client, result.model) if wants_classes else ()
    show_result(result, classes=classes, out=options.out, as_json=options.as_json, quiet=options.quiet)


def _check(context: click.Context, options: SimpleNamespace) -> None:
    """Raise UsageError for what is known to be wrong before anything is scored."""

    def is_given(name: str) -> bool:
        return context.get_parameter_source(name) is ParameterSource.COMMANDLINE

    if options.bundle is None and options.server is None:
        raise click.UsageError("give --server (or set TOPB_SERVER), or --bundle")
    if options.bundle is not None and is_given("server"):
        raise click.UsageError("--server and --bundle exclude each other")
    where, misplaced = ("--bundle", _BUNDLE_ONLY) if options.bundle is None else ("--server", _SERVER_ONLY)
    for name in filter(is_given, misplaced):
        raise click.UsageError(f"--{name.replace('_', '-')} goes with {where}")
    if options.detach and options.out is not None:
        raise click.UsageError(
            "--detach does not wait for the picks that --out writes: "
            "write them later with topb selections result --out"
        )


def _submit(options: SimpleNamespace) -> None:
    arguments = _arguments_at_server(options)
    with open_client(options) as client:
        handle = client.submit(_pool(options), options.budget, **arguments)
    if options.as_json:
        print_json({"selection": handle.id, "request_id": handle.request_id})
    else:
        print(handle.id)


def _arguments_at_server(options: SimpleNamespace) -> dict[str, Any]:
    """Return the keyword arguments that `Client.select_batch` and `Client.submit` share."""
    exclude: ExcludeFile | list[str] | None = None
    if _is_parquet(options.exclude):
        exclude = ExcludeFile(options.exclude, options.exclude_column)
    elif options.exclude is not None:
        exclude = _ids_in(options.exclude)
    return {
        **_same_everywhere(options),
        "model": options.model,
        "exclude": exclude,
        "request_id": options.request_id,
    }


def _same_everywhere(options: SimpleNamespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("strategy", "strategy_options", "seed")}


def _pool(options: SimpleNamespace) -> Pool:
    return Pool(
        options.pool,
        format=options.format,
        id_column=options.id_column,
        image_column=options.image_column,
        path_column=options.path_column,
    )


def _select_in_process(options: SimpleNamespace, progress: _ProgressCallback | None) -> SelectionResult:
    in_parquet = _is_parquet(options.exclude)
    listed = [] if options.exclude is None or in_parquet else _ids_in(options.exclude)
    try:
        (engine,) = entry_points(group="topb.engines", name="in_process")
        result: SelectionResult = engine.load()(
            _pool(options),
            options.budget,
            **_same_everywhere(options),
            bundle=options.bundle,
            exclude=listed,
            exclude_uri=options.exclude if in_parquet else None,
            exclude_column=options.exclude_column,
            device=options.device,
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


def _is_parquet(exclude: str | None) -> bool:
    return exclude is not None and exclude.endswith(".parquet")


def _ids_in(file: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise click.UsageError(f"--exclude {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--exclude {file}: not a text file in UTF-8") from error
    return [line for line in lines if line]
