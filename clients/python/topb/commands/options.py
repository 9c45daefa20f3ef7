"""The look that all commands share: sections of options, suggestions, and options that many commands take."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_FIRST_SECTION = "Options"


class Option(click.Option):
    """An option with a place in the help."""

    def __init__(self, *arguments: Any, section: str = _FIRST_SECTION, **settings: Any) -> None:
        """Create the option.

        Args:
            *arguments: what `click.Option` takes.
            section: heading under which the help lists the option; text after a first line break is shown
                below the heading.
            **settings: what `click.Option` takes.
        """
        super().__init__(*arguments, **settings)
        self.section = section


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
    """One of several words; a mistyped one is answered with the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the message for a value that is none of the choices."""
        message = super().get_invalid_choice_message(value, ctx)
        close = difflib.get_close_matches(str(value), self.choices, n=1)
        return f"{message} Did you mean {close[0]!r}?" if close else message


def option(
    *declarations: str, section: str = _FIRST_SECTION, **settings: Any
) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds an option; see `Option` and `click.option` for the arguments."""
    return click.option(*declarations, cls=Option, section=section, **settings)


def combined(*decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Return one decorator that adds the options of several, in the given order."""

    def decorate(function: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def json_option(section: str = _FIRST_SECTION) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds `--json`, as the parameter `as_json`."""
    return option("--json", "as_json", is_flag=True, section=section, help="Print JSON and nothing else.")
