"""The `topb` command: finds its subcommands through entry points, and loads only the one that is called.

A subcommand is an entry point of the group `topb.commands`, a function `run(argv) -> int`; its name is
the entry point's. What it raises ends here, as one line on stderr and an exit code:

    0    done
    1    it failed; the line says why, with the error's reason
    2    it was called wrongly, or a package that it needs is not installed
    130  it was interrupted (Ctrl-C)

With TOPB_TRACEBACK=1 in the environment the traceback comes too.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points, version

from topb.commands._failures import MissingPackageError, UsageError

_GROUP = "topb.commands"
_DONE, _FAILED, _MISUSED, _INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class _Description:
    """What is said of a subcommand without loading it."""

    help: str
    needs: str | None = None
    """What the extra brings, in words."""
    extra: str | None = None
    """The extra that brings it."""


_DESCRIPTIONS: Mapping[str, _Description] = {
    "select": _Description("select the images of a pool that are most worth labelling"),
    "selections": _Description("list selections of a server, show or cancel one, fetch its result"),
    "info": _Description("show what a server is and which models it has"),
    "serve": _Description("serve models over gRPC", "the scorer", "scorer"),
    "model": _Description("show, verify and list bundles", "the scorer", "scorer"),
    "results": _Description("forget selections that ended long ago", "the scorer", "scorer"),
    "scores": _Description("list, verify and prune what servers have scored", "the scorer", "scorer"),
    "train": _Description("train a round and export its bundle", "the trainer", "trainer"),
    "experiment": _Description(
        "compare methods over rounds and seeds, as the paper does", "the trainer", "trainer"
    ),
    "report": _Description("turn an experiment's records into tables and figures", "the report", "report"),
    "demo": _Description("train, export, serve and select on real images, once through", "the demo", "demo"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand that the arguments name.

    Args:
        argv: without the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        return _run(arguments)
    except SystemExit as stop:  # argparse's own, after --help or a usage error
        return stop.code if isinstance(stop.code, int) else _DONE if stop.code is None else _FAILED
    except UsageError as error:
        return _fail(str(error), _MISUSED)
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has enough of it. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except Exception as error:
        reason = getattr(error, "reason", None)
        if isinstance(reason, str) and not isinstance(error, (OSError, UnicodeError)):
            return _fail(f"{error} [{reason}]", _FAILED)
        if isinstance(error, OSError):
            return _fail(str(error), _FAILED)
        return _fail(f"unexpected {type(error).__name__}: {error} (TOPB_TRACEBACK=1 shows where)", _FAILED)


def _run(arguments: list[str]) -> int:
    commands = {entry.name: entry for entry in entry_points(group=_GROUP)}
    match arguments:
        case []:
            print(_help(commands), file=sys.stderr)
            return _MISUSED
        case ["-h" | "--help", *_]:
            print(_help(commands))
            return _DONE
        case ["--version", *_]:
            print(f"topb {version('topb')}")
            return _DONE
        case [name, *rest] if name in commands:
            return _run_command(commands[name], rest)
    close = difflib.get_close_matches(arguments[0], commands, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"there is no command {arguments[0]!r}{meant} (topb --help lists them)")


def _run_command(entry: EntryPoint, arguments: list[str]) -> int:
    description = _DESCRIPTIONS.get(entry.name, _Description(""))
    try:
        exit_code = entry.load()(arguments)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"topb {entry.name}", error, needs=description.needs, extra=description.extra
        ) from error
    sys.stdout.flush()
    return int(exit_code)


def _help(commands: Mapping[str, EntryPoint]) -> str:
    known = [name for name in _DESCRIPTIONS if name in commands]
    others = sorted(set(commands) - set(known))
    width = max((len(name) for name in commands), default=0)
    lines = [f"  {name:{width}}  {_line_of(commands[name])}" for name in known + others]
    return "\n".join(
        [
            "usage: topb [--help] [--version] COMMAND ...",
            "",
            "Picks the next images worth labelling.",
            "",
            "commands:",
            *lines,
            "",
            "topb COMMAND --help says more of each.",
        ]
    )


def _line_of(entry: EntryPoint) -> str:
    description = _DESCRIPTIONS.get(entry.name)
    if description is None:
        return f"from {entry.value.partition(':')[0]}"
    return description.help if description.extra is None else f"{description.help} [{description.extra}]"


def _fail(message: str, exit_code: int) -> int:
    if os.environ.get("TOPB_TRACEBACK") == "1":
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return exit_code
