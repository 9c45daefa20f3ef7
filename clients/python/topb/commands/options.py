"""The click classes that all commands share: options, commands with sections, groups and choices."""

from __future__ import annotations

import copy
import difflib
import enum
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)

_FIRST_SECTION = "Options"
# The types that placeholders in the help stand for. Any other placeholder stands for text.
_TYPES: dict[str, click.ParamType[Any]] = {
    **dict.fromkeys(("DIR", "FILE", "PATH", "PEM"), PATH),
    "N": click.INT,
    "S": click.FLOAT,
}


class Option(click.Option):
    """An option declared in the notation of the help text: `Option("--budget -b N", "Number of picks.")`."""

    def __init__(self, usage: str, help: str, *, name: str | None = None, **settings: Any) -> None:
        """Create the option.

        Args:
            usage: The names of the option, followed by a placeholder for its value, which determines the type
                of the value. Without a placeholder and without a type, the option is a flag.
            help: The help text.
            name: The name of the parameter, if it differs from the option's name.
            **settings: Further arguments of `click.Option`.
        """
        words = usage.split()
        names = [word for word in words if word.startswith("-")]
        metavar = words[-1] if len(words) > len(names) else None
        if metavar in _TYPES:
            settings.setdefault("type", _TYPES[metavar])
        elif metavar is None and "type" not in settings:
            settings["is_flag"] = True
        super().__init__([*names, name] if name else names, help=help, metavar=metavar, **settings)
        self.section = _FIRST_SECTION

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        """Return the default. For a `StrEnum`, return the value, because the help would show the name."""
        default = super().get_default(ctx, call)
        return default.value if isinstance(default, enum.StrEnum) else default


class Command(click.Command):
    """A command whose help lists its options section by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, with a heading for each section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                sections.setdefault(getattr(parameter, "section", _FIRST_SECTION), []).append(record)
        for section, records in sections.items():
            heading, _, text = section.partition("\n")
            with formatter.section(heading):
                if text:
                    formatter.write_text(text)
                formatter.write_dl(records)


class Group(click.Group):
    """A group of commands, listed in the order of their definition."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands."""
        return list(self.commands)


class Choice(click.Choice[str]):
    """A choice of words or members of a `StrEnum`. The error for a mistyped word suggests the nearest one."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        """Return the choice as text. The text of a member of a `StrEnum` is its value."""
        return super().normalize_choice(str(choice), ctx)

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the message for a value that is none of the choices."""
        message = super().get_invalid_choice_message(value, ctx)
        close = difflib.get_close_matches(str(value), map(str, self.choices), n=1)
        return f"{message} Did you mean {close[0]!r}?" if close else message


def section(heading: str, *options: Option) -> list[Option]:
    """Return copies of the options that the help lists under a heading.

    Text after a line break in `heading` is shown below the heading.
    """
    listed = [copy.copy(option) for option in options]
    for option in listed:
        option.section = heading
    return listed


JSON = Option("--json", "Print JSON and nothing else.", name="as_json")
