"""The `topb select` command, which selects images on a server or in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any, get_args

import click
from click.core import ParameterSource

from topb.commands._connection import TLS_OPTIONS, open_client, server_option, timeout_option
from topb.commands._exclusion import read_exclusion
from topb.commands._failures import MissingPackageError
from topb.commands._progress_line import shown_progress
from topb.commands._result_output import RESULT_OPTIONS, show_result
from topb.commands.options import Choice, Command, Option, section
from topb.commands.output import print_json
from topb.pools import ExcludeFile, Pool, PoolFormatName
from topb.progress import Progress
from topb.results import SelectionResult


def _parsed_strategy_options(
    _context: click.Context, _option: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.UsageError(f"--strategy-option {name}{equals}: expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


_MODEL = Option(
    "--model ID",
    'Model of the server, or "none" to select from vectors without a model.',
    show_default="the server's default model",
)
_WHAT_TO_SELECT = section(
    "What to select",
    Option("--strategy NAME", "Query strategy.", default="aalu"),
    Option(
        "--strategy-option NAME=VALUE",
        "Option of the strategy; repeatable.",
        name="strategy_options",
        multiple=True,
        callback=_parsed_strategy_options,
    ),
    _MODEL,
    Option("--seed N", "Seed of strategies that draw at random.", default=0),
    Option(
        "--exclude FILE",
        "Images to leave out: a .csv, .parquet or .json file of topb or of your own, a text file with one id "
        "per line, or a bundle, for its labelled images. The scorer reads URIs.",
        type=click.Path(),
    ),
    Option("--include-labelled", "Pick images that the model was trained on as well."),
    Option("--exclude-column NAME", "Column with the ids in a .csv or .parquet file.", default="id"),
)
_LAYOUT = section(
    "Layout of the pool",
    Option(
        "--format",
        "Format of the pool.",
        type=Choice(get_args(PoolFormatName)),
        show_default="detected by the scorer",
    ),
    Option(
        "--id-column NAME", "Column with the ids; '#row' numbers the rows of Parquet files.", default="id"
    ),
    Option("--image-column NAME", "Column with encoded images.", default="image"),
    Option("--path-column NAME", "Column with the paths of image files.", default="path"),
    Option("--embedding-column NAME", "Column with vectors.", show_default="embedding"),
    Option(
        "--probabilities-column NAME",
        "Column with predicted class probabilities beside vectors.",
        show_default="probabilities, if there is one",
    ),
)
_WITH_SERVER = section(
    "With --server",
    timeout_option(None),
    Option(
        "--request-id ID", "Name of this request. Repeating it resumes the selection, or fetches its result."
    ),
    Option("--detach", "Print the selection's id and do not wait for its result; see topb selections."),
)
_WITH_BUNDLE = section(
    "With --bundle",
    Option("--device DEVICE", '"cpu" or "cuda:0".', default="cpu"),
    Option("--batch-size N", "Number of images in a batch.", show_default="depends on the device"),
    Option(
        "--state DIR",
        "Directory that keeps scores, and features of encoders that training leaves as they are, so that "
        "later selections need no images.",
        show_default="nothing is kept",
    ),
)


@click.command(
    cls=Command,
    params=[
        click.Argument(["pool"], type=click.Path()),
        Option("--budget -b N", "Number of images to pick.", required=True),
        server_option(required=False),
        Option("--bundle DIR", "Score in this process, with this bundle, instead of at a server."),
        *_WHAT_TO_SELECT,
        *_LAYOUT,
        *section("Output", *RESULT_OPTIONS),
        *_WITH_SERVER,
        *_WITH_BUNDLE,
        *TLS_OPTIONS,
    ],
    epilog="Example: topb select pool.parquet --budget 2500 --server localhost:50051 --out picks.parquet",
)
@click.pass_context
def run(context: click.Context, /, **parameters: Any) -> None:
    """Select the images of a pool that are most worth labelling next.

    POOL is a path, a glob or an s3:// URI, as the scorer sees it. Give --server (or set TOPB_SERVER) to score
    at a server, or --bundle to score in this process. Vectors need neither of them, if the strategy needs no
    model.
    """
    options = SimpleNamespace(**parameters)
    _check(context, options)
    if options.detach:
        _submit(options)
        return
    with shown_progress(quiet=options.quiet) as progress:
        if _is_in_process(options):
            result = _select_in_process(options, progress)
        else:
            arguments = _arguments_at_server(options)
            with open_client(parameters) as client:
                result = client.select_batch(**arguments, progress=progress)
    show_result(result, out=options.out, as_json=options.as_json, quiet=options.quiet)


def _check(context: click.Context, options: SimpleNamespace) -> None:
    """Raise UsageError if the options contradict each other, before anything is scored."""

    def is_given(option: str | None) -> bool:
        return context.get_parameter_source(str(option)) is ParameterSource.COMMANDLINE

    if options.bundle is not None and is_given("server"):
        raise click.UsageError("--server and --bundle cannot be used together")
    misplaced = [(option, "--bundle") for option in _WITH_BUNDLE if options.bundle is None]
    if _is_in_process(options):
        misplaced += [(option, "--server") for option in (_MODEL, *_WITH_SERVER, *TLS_OPTIONS)]
    for option, needed in misplaced:
        if is_given(option.name):
            raise click.UsageError(f"{option.opts[0]} requires {needed}")
    if options.detach and options.out is not None:
        raise click.UsageError(
            "--out cannot be used with --detach, which does not wait for the picks; "
            "write them later with topb selections result --out"
        )


def _is_in_process(options: SimpleNamespace) -> bool:
    return options.bundle is not None or options.server is None


def _submit(options: SimpleNamespace) -> None:
    arguments = _arguments_at_server(options)
    with open_client(vars(options)) as client:
        handle = client.submit(**arguments)
    if options.as_json:
        print_json({"selection": handle.id, "request_id": handle.request_id})
    else:
        print(handle.id)


def _arguments_at_server(options: SimpleNamespace) -> dict[str, Any]:
    """Return the arguments that `Client.select_batch` and `Client.submit` share."""
    return {
        **_arguments(options),
        "exclude": options.exclude and read_exclusion(options.exclude, options.exclude_column),
        "model": options.model,
        "request_id": options.request_id,
    }


def _arguments(options: SimpleNamespace) -> dict[str, Any]:
    """Return the arguments that selecting at a server and in this process share."""
    columns = ("id_column", "image_column", "path_column", "embedding_column", "probabilities_column")
    layout = {name: getattr(options, name) for name in ("format", *columns)}
    names = ("budget", "strategy", "strategy_options", "seed", "include_labelled")
    same = {name: getattr(options, name) for name in names}
    return {"pool": Pool(options.pool, **layout), **same}


def _select_in_process(
    options: SimpleNamespace, progress: Callable[[Progress], None] | None
) -> SelectionResult:
    exclusion = options.exclude and read_exclusion(options.exclude, options.exclude_column)
    try:
        (engine,) = entry_points(group="topb.engines", name="in_process")
        result: SelectionResult = engine.load()(
            **_arguments(options),
            bundle=options.bundle,
            exclude=exclusion if isinstance(exclusion, dict) else (),
            exclude_uri=exclusion.uri if isinstance(exclusion, ExcludeFile) else None,
            exclude_column=options.exclude_column,
            device=options.device,
            batch_size=options.batch_size,
            state=options.state,
            progress=progress,
        )
    except ModuleNotFoundError as error:
        command = "topb select without --server" if options.bundle is None else "topb select --bundle"
        raise MissingPackageError(command, error, extra="scorer") from error
    return result
