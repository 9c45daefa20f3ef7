"""Derive command-line options from a dataclass of settings.

Each field becomes an option with its name, type and default; the docstring below the field becomes the help.
Fields of a nested dataclass become `--section.field`, under a heading of their own. Supported types are bool,
int, float, str, Literal of strings, `X | None`, and `tuple[X, ...]`.
"""

from __future__ import annotations

import ast
import inspect
import tempfile
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from topb.commands.options import Choice, Command, Option, section
from topb_trainer.errors import ConfigurationError

Config = TypeVar("Config")

# Between the sections and the field in the name of a parameter, which must be an identifier.
_SEPARATOR = "__"


class SettingsCommand(Command):
    """A command whose repeatable options also accept several values at once: `--vae.hidden 128 64`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, with `--name a b` read as `--name a --name b` and `_` in names read as `-`."""
        options = [option for option in self.params if isinstance(option, click.Option)]
        repeatable = {name for option in options if option.multiple for name in option.opts}
        expanded: list[str] = []
        current = None
        for word in args:
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                name = name.replace("_", "-")
                current = name if name in repeatable else None
                expanded.append(f"{name}{equals}{value}")
            elif current is not None and expanded[-1] != current:
                expanded += [current, word]
            else:
                expanded.append(word)
        return super().parse_args(ctx, expanded)


def dataclass_options(defaults: Any) -> list[Option]:
    """Return an option for each field of a dataclass.

    Args:
        defaults: an instance of the dataclass, whose values are the defaults.
    """
    return [option for leaf in _leaves(defaults) for option in section(leaf.heading, _option(leaf))]


def from_options(defaults: Config, options: Mapping[str, Any], *path: str) -> Config:
    """Return the settings that a command was given.

    Args:
        defaults: the instance from which `dataclass_options` derived the options.
        options: the parameters of the command, by name.
        *path: the names of the fields that lead from the outermost dataclass to `defaults`.
    """
    values = {}
    for name, value in _values(defaults).items():
        here = (*path, name)
        nested = is_dataclass(value)
        values[name] = from_options(value, options, *here) if nested else options[_SEPARATOR.join(here)]
    return type(defaults)(**values)


def preset_option(names: Sequence[str], load: Callable[[str], Any], *, default: str | None = None) -> Option:
    """Return the option `--preset`, whose settings become the defaults of the other options.

    Args:
        names: the names of the presets.
        load: returns the settings of a preset by its name, or of a TOML file by its path.
        default: the preset to use if the option is not given.
    """

    def use(context: click.Context, _option: click.Parameter, name: str | None) -> None:
        if name is not None:
            context.default_map = {leaf.parameter: leaf.value for leaf in _leaves(load(name))}

    def complete(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
        named = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return named or [CompletionItem(incomplete, type="file")]

    return Option(
        "--preset NAME|FILE",
        f"Settings by name ({', '.join(names)}), or the path of a TOML file. "
        "Command-line options override the preset, which overrides the defaults.",
        default=default,
        # Process this option first, because the preset decides the defaults of the others.
        is_eager=True,
        expose_value=False,
        callback=use,
        shell_complete=complete,
    )


def given_settings(context: click.Context, defaults: Any) -> dict[str, Any]:
    """Return the settings that the command line gives, such as `train.seed`, with their values.

    Args:
        context: the context of the command.
        defaults: the instance from which `dataclass_options` derived the options.
    """
    return {
        ".".join(leaf.path): context.params[leaf.parameter]
        for leaf in _leaves(defaults)
        if context.get_parameter_source(leaf.parameter) is ParameterSource.COMMANDLINE
    }


def require_writable(path: Path) -> None:
    """Raise an error unless output can be written to a directory, or to one that is created there later.

    Raises:
        ConfigurationError: there is a file of this name, or nothing can be written there.
    """
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"--out {path} cannot be written to: {error.strerror}; name a directory", reason="OUT_UNUSABLE"
        ) from error


class _Leaf(NamedTuple):
    """A field whose value is not a dataclass."""

    path: tuple[str, ...]
    kind: Any
    value: Any
    help: str
    heading: str

    @property
    def parameter(self) -> str:
        return _SEPARATOR.join(self.path)


def _leaves(settings: Any, *path: str, heading: str = "Options") -> Iterator[_Leaf]:
    kinds, docs = typing.get_type_hints(type(settings)), _field_docs(type(settings))
    for name, value in _values(settings).items():
        here = (*path, name)
        if is_dataclass(value):
            about = docs.get(name) or inspect.getdoc(value)
            yield from _leaves(value, *here, heading=f"{'.'.join(here)}\n{about}")
        else:
            yield _Leaf(here, kinds[name], value, docs.get(name, ""), heading)


def _values(settings: Any) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _field_docs(config: type) -> dict[str, str]:
    """Return the string literal below each field, by field name. Python itself does not keep them."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        ast.unparse(field.target): inspect.cleandoc(ast.literal_eval(text.value))
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def _option(leaf: _Leaf) -> Option:
    *sections, name = (word.replace("_", "-") for word in leaf.path)
    usage, kind = f"--{'.'.join([*sections, name])}", leaf.kind
    if kind == bool | None:
        kind = bool  # a flag, which is None unless it is given
    if kind is bool:
        usage += f"/--{'.'.join([*sections, f'no-{name}'])}"
    multiple = typing.get_origin(kind) is tuple
    if multiple:
        kind, _ = typing.get_args(kind)
        usage += f" {_parameter_type(kind).name.upper()}..."
    settings = {"type": _parameter_type(kind), "default": leaf.value, "multiple": multiple}
    return Option(usage, leaf.help, name=leaf.parameter, **settings)


def _parameter_type(kind: Any) -> click.ParamType[Any]:
    if typing.get_origin(kind) is Literal:
        return Choice(typing.get_args(kind))
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        (kind,) = (one for one in typing.get_args(kind) if one is not types.NoneType)
        return _OrNone(_parameter_type(kind))
    return {bool: click.BOOL, int: click.INT, float: click.FLOAT, str: click.STRING}[kind]


class _OrNone(click.ParamType[Any]):
    """A value, or the word None, which resets a value that the preset sets."""

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self.name = f"{kind.name}|none"
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value in ("None", "none", "NONE") else self._kind.convert(value, param, ctx)
