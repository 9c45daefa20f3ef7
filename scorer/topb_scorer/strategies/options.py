"""Declare options of query strategies as dataclass fields, and parse them from text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from topb_scorer.errors import InvalidRequestError

LARGEST = 3.4028234663852886e38
"""The largest float32. Features are float32, and a float64 holds the square of any number up to this."""

_KEY = "option"


@dataclass(frozen=True)
class Option:
    """The declaration of an option of a strategy."""

    help: str
    """A description for users."""
    kind: type[int] | type[float]
    """The type of the values."""
    least: float
    """The smallest value, inclusive."""
    most: float
    """The largest value, inclusive."""
    required: bool
    """Whether the option has no default."""

    @property
    def expected(self) -> str:
        """A description of the allowed values."""
        kind = "a whole number" if self.kind is int else "a number"
        return f"{kind} from {self.least:g} to {self.most:.10g}"

    def parse(self, name: str, text: str) -> float:
        """Parse a value from text.

        Raises:
            InvalidRequestError: with reason OPTION_OUT_OF_RANGE.
        """
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (self.least <= value <= self.most and value == self.kind(value)):
            raise InvalidRequestError(
                f"option {name} is {text!r}; expected {self.expected}. {self.help}",
                reason="OPTION_OUT_OF_RANGE",
                option=name,
            )
        return self.kind(value)


def option(
    help: str,
    *,
    kind: type[int] | type[float] = float,
    least: float,
    most: float = LARGEST,
    default: Any = MISSING,
) -> Any:
    """Declare a dataclass field as an option of a strategy.

    Args:
        help: a description for users.
        kind: the type of the values.
        least: the smallest value, inclusive.
        most: the largest value, inclusive. The default is the largest float32.
        default: the value if the option is not given. Without a default, the option is required.
    """
    return field(default=default, metadata={_KEY: Option(help, kind, least, most, default is MISSING)})


def options_of(declaring: type) -> dict[str, Option]:
    """Return the options of a dataclass by name, in the order of declaration."""
    return {field.name: field.metadata[_KEY] for field in fields(declaring) if _KEY in field.metadata}


def parsed(declaring: type, strategy: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Parse the options of a dataclass, and return them as keyword arguments for it.

    Args:
        declaring: the dataclass.
        strategy: the name of the strategy, for error messages.
        texts: values by option name. Options of other classes are ignored.

    Raises:
        InvalidRequestError: with reason STRATEGY_OPTION_UNKNOWN if a required option is missing, or
            OPTION_OUT_OF_RANGE.
    """
    declared = options_of(declaring)
    if missing := [name for name, option in declared.items() if option.required and name not in texts]:
        raise InvalidRequestError(
            f"strategy {strategy} with {', '.join(sorted(texts)) or 'no options'} also needs "
            f"{', '.join(missing)}; set {', '.join(missing)} too",
            reason="STRATEGY_OPTION_UNKNOWN",
            strategy=strategy,
        )
    return {name: declared[name].parse(name, text) for name, text in texts.items() if name in declared}
