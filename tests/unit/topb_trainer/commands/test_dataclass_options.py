from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from topb_trainer.commands.dataclass_options import (
    SettingsCommand,
    dataclass_options,
    from_options,
    preset_option,
)


class Kind(StrEnum):
    SMALL = "small_one"
    LARGE = "large_one"


@dataclass(frozen=True)
class Model:
    """The model."""

    batch_size: int = 8
    """Images in a
    mini-batch."""
    kind: Literal[Kind.SMALL, Kind.LARGE] = Kind.SMALL
    flip: bool = True
    hidden: tuple[int, ...] = (2, 1)
    crop: bool | None = None


@dataclass(frozen=True)
class Settings:
    rate: float = 0.5
    name: str = "x"
    threads: int | None = None
    model: Model = field(default_factory=Model)


PRESETS = {"two": Settings(rate=2.0, threads=2, model=Model(hidden=(5,), flip=False))}


def run(*arguments: str) -> tuple[Any, str]:
    """The settings that the arguments make, and what was printed."""
    made = []

    params = [preset_option(list(PRESETS), PRESETS.__getitem__), *dataclass_options(Settings())]

    @click.command(cls=SettingsCommand, params=params, context_settings={"show_default": True})
    def command(**options: Any) -> None:
        made.append(from_options(Settings(), options))

    result = CliRunner().invoke(command, arguments, terminal_width=100)
    return (made[0] if made else None), result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", Settings()),
        ("--rate 1 --name y --threads 3", Settings(1.0, "y", 3)),
        ("--model.batch-size=4 --model.kind large_one", Settings(model=Model(4, Kind.LARGE))),
        ("--model.batch_size 4", Settings(model=Model(4))),
        ("--model.no-flip", Settings(model=Model(flip=False))),
        ("--model.crop", Settings(model=Model(crop=True))),
        ("--model.no-crop", Settings(model=Model(crop=False))),
        ("--model.hidden 4 3 2 --rate 1", Settings(1.0, model=Model(hidden=(4, 3, 2)))),
        ("--model.hidden 4 --model.hidden=3", Settings(model=Model(hidden=(4, 3)))),
        ("--preset two", PRESETS["two"]),
        (
            "--threads None --model.flip --model.hidden 7 --preset two",
            Settings(2.0, model=Model(hidden=(7,))),
        ),
    ],
)
def test_options_override_the_preset_which_overrides_the_defaults(arguments: str, expected: Settings) -> None:
    settings, printed = run(*arguments.split())
    assert (settings, printed) == (expected, "")
    assert isinstance(settings.model.kind, Kind)


@pytest.mark.parametrize(
    "arguments",
    [["--rate", "x"], ["--model.hidden"], ["--model.hidden", "x"], ["--model.kind", "x"], ["stray"]],
)
def test_an_invalid_value_is_a_usage_error(arguments: list[str]) -> None:
    settings, printed = run(*arguments)
    assert settings is None
    assert "Error: " in printed


def test_the_help_has_docstrings_sections_and_the_defaults_of_the_preset() -> None:
    _, shown = run("--preset", "two", "--help")
    shown = " ".join(shown.split())
    for words in (
        "--rate FLOAT [default: 2.0]",
        "model: The model. --model.batch-size INTEGER Images in a mini-batch. [default: 8]",
        "--model.kind [small_one|large_one] [default: small_one]",
        "--model.flip / --model.no-flip [default: model.no-flip]",
        "--model.hidden INTEGER... [default: 5]",
        "--threads INTEGER|NONE [default: 2]",
    ):
        assert words in shown
