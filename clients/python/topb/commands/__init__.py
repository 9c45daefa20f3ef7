"""The `topb` command. It finds its subcommands through entry points and loads only the one that is called.

A subcommand is an entry point of the group `topb.commands` that names a `click.Command`. An exception that it
raises becomes one line on standard error and an exit code:

    0    success
    1    the command failed; the line ends with the reason of the error
    2    the command line is wrong, or a package that the command needs is not installed
    130  interrupted (Ctrl-C)

With TOPB_TRACEBACK=1 in the environment the traceback is printed as well.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

import click
from click.shell_completion import get_completion_class, shell_complete

from topb.commands._failures import MissingPackageError
from topb.commands.options import Choice, Group

_COMPLETION_VARIABLE = "_TOPB_COMPLETE"
_DONE, _FAILED, _MISUSED, _INTERRUPTED = 0, 1, 2, 130


class _Description(NamedTuple):
    """What the help says about a subcommand without loading it, and the extra that the subcommand needs."""

    help: str
    extra: str | None = None


_DESCRIPTIONS: Mapping[str, _Description] = {
    "select": _Description("Select the images of a pool that are most worth labelling."),
    "selections": _Description("List, show and cancel selections of a server, and fetch their results."),
    "info": _Description("Show a server, its limits and its models."),
    "serve": _Description("Serve models over gRPC.", "scorer"),
    "model": _Description("Show, verify and list bundles.", "scorer"),
    "results": _Description("Delete selections that ended long ago.", "scorer"),
    "scores": _Description("List, verify and prune the scores that servers keep.", "scorer"),
    "import": _Description("Make a bundle of a model that you have, without training.", "trainer"),
    "train": _Description("Train one round and export its bundle.", "trainer"),
    "experiment": _Description("Compare methods over rounds and seeds, as the paper does.", "trainer"),
    "report": _Description("Turn the records of an experiment into tables and figures.", "report"),
    "demo": _Description("Train, export, serve and select once on real images.", "demo"),
}


class _LazyCommand(click.Command):
    """A subcommand whose module is imported only to run it or to complete its arguments."""

    def __init__(self, entry: EntryPoint) -> None:
        description = _DESCRIPTIONS.get(entry.name, _Description(f"From {entry.value.partition(':')[0]}."))
        extra = f" [{description.extra}]" if description.extra else ""
        super().__init__(entry.name, short_help=description.help + extra)
        self._entry = entry

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        command: click.Command = self._entry.load()
        return command.make_context(info_name, args, parent, **extra)


@click.command(
    params=[click.Argument(["shell"], type=Choice(["bash", "zsh", "fish"]))],
    short_help="Print the script that completes topb in your shell.",
)
def _completion(shell: str) -> None:
    """Print the script that completes topb's commands, options and choices in a shell.

    \b
    bash: add to ~/.bashrc    eval "$(topb completion bash)"
    zsh:  add to ~/.zshrc     eval "$(topb completion zsh)"
    fish: run once            topb completion fish > ~/.config/fish/completions/topb.fish
    """
    completion = get_completion_class(shell)
    assert completion is not None
    print(completion(_topb(), {}, "topb", _COMPLETION_VARIABLE).source(), end="")


def _topb() -> Group:
    """Return the root command, with every installed subcommand."""
    entries = {entry.name: entry for entry in entry_points(group="topb.commands")}
    known = [name for name in _DESCRIPTIONS if name in entries]
    topb = Group(
        "topb",
        help="Select the images that are most worth labelling next.",
        epilog="Each command has its own --help.",
        commands={name: _LazyCommand(entries[name]) for name in [*known, *sorted(set(entries) - set(known))]},
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
            "show_default": True,
        },
    )
    topb.add_command(_completion, "completion")
    return click.version_option(package_name="topb", prog_name="topb", message="%(prog)s %(version)s")(topb)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that the arguments name.

    Args:
        argv: The arguments without the program name; None for those of this process.

    Returns:
        The exit code.
    """
    try:
        exit_code = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return _MISUSED
    except click.ClickException as error:
        return _fail(_with_hint(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has closed it: drop what is still buffered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except OSError as error:
        return _fail(str(error), _FAILED)
    except Exception as error:
        reason = getattr(error, "reason", None)
        if isinstance(reason, str) and not isinstance(error, UnicodeError):
            return _fail(f"{error} [{reason}]", _FAILED)
        return _fail(f"unexpected {type(error).__name__}: {error} (TOPB_TRACEBACK=1 shows where)", _FAILED)
    return exit_code


def _run(arguments: list[str]) -> int:
    topb = _topb()
    if instruction := os.environ.get(_COMPLETION_VARIABLE):
        # A command whose extra is missing has nothing to complete.
        with contextlib.suppress(ModuleNotFoundError):
            return shell_complete(topb, {}, "topb", _COMPLETION_VARIABLE, instruction)
        return _FAILED
    try:
        with topb.make_context("topb", arguments) as context:
            topb.invoke(context)
            return _DONE
    except click.exceptions.Exit as done:
        return done.exit_code
    except ModuleNotFoundError as error:
        name = str(context.invoked_subcommand)
        extra = _DESCRIPTIONS[name].extra if name in _DESCRIPTIONS else None
        raise MissingPackageError(f"topb {name}", error, extra=extra) from error


def _with_hint(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message} (see {error.ctx.command_path} --help)"
    return message


def _fail(message: str, exit_code: int) -> int:
    if os.environ.get("TOPB_TRACEBACK") == "1":
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return exit_code
