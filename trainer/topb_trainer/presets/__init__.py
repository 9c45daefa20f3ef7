"""Load presets: named settings in the TOML files of this folder, or a TOML file of the user.

This folder holds the presets of a round, and `experiments/` the presets of an experiment.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from topb_trainer.config import TrainConfig
from topb_trainer.errors import ConfigurationError
from topb_trainer.experiment.config import ExperimentConfig, refuse_replaced

Config = TypeVar("Config")

_EXPERIMENTS = "experiments"


def preset_names() -> list[str]:
    """Return the names of the presets for a round, sorted."""
    return _names()


def experiment_preset_names() -> list[str]:
    """Return the names of the presets for an experiment, sorted."""
    return _names(_EXPERIMENTS)


def load_preset(name: str) -> TrainConfig:
    """Return the settings of a round from a preset or a TOML file. Settings that it omits keep their
    defaults.

    Args:
        name: the name of a preset, or the path of a file.

    Raises:
        ConfigurationError: there is no such preset, or it is not valid.
    """
    return from_mapping(TrainConfig, _settings(name), f"preset {name}")


def load_experiment_preset(name: str) -> ExperimentConfig:
    """Return the settings of an experiment from a preset, or from a TOML file; see `load_preset`."""
    settings = _settings(name, _EXPERIMENTS)
    config = from_mapping(ExperimentConfig, settings, f"preset {name}")
    refuse_replaced(_flat(settings))
    return config


def from_mapping(config: type[Config], settings: Mapping[str, Any], source: str) -> Config:
    """Build a configuration from nested settings, such as those of a TOML file.

    Args:
        config: a dataclass, whose fields may be dataclasses.
        settings: a value for each field that does not keep its default.
        source: the origin of the settings, for error messages.

    Raises:
        ConfigurationError: a setting is unknown, or its value has the wrong type or is out of range.
    """
    # pydantic's strict mode accepts a list as a tuple only in JSON. It never accepts a string as a number.
    text = json.dumps(settings, default=str)
    try:
        return TypeAdapter(config).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        # Report an unknown setting first, because it explains best what went wrong.
        found = min(error.errors(), key=lambda one: one["type"] != "unexpected_keyword_argument")
    path = [str(part) for part in found["loc"]]
    where = f"{source}: {'.'.join(path)}"
    if found["type"] == "unexpected_keyword_argument":
        known = _known_settings(config(), path[:-1])
        near = get_close_matches(path[-1], known, n=1)
        raise ConfigurationError(
            f"{where} is not a setting. {f'Did you mean {near[0]}? ' if near else ''}"
            f"The settings are {', '.join(known)}",
            reason="UNKNOWN_SETTING",
        )
    # pydantic names members of a StrEnum by their repr, <ResizeRule.STRETCH: 'stretch'>.
    expected = re.sub(r"<[\w.]+: (.+?)>", r"\1", found["msg"])
    raise ConfigurationError(f"{where} is {found['input']!r}. {expected}", reason="INVALID_SETTING")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _known_settings(config: Any, path: list[str]) -> list[str]:
    for name in path:
        config = getattr(config, name)
    return [field.name for field in fields(config)]


def _names(*folder: str) -> list[str]:
    files = resources.files(__name__).joinpath(*folder).iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".toml"))


def _settings(name: str, *folder: str) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(name, *folder))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"preset {name} is not TOML: {error}", reason="PRESET_UNREADABLE") from error


def _read(name: str, *folder: str) -> str:
    if name in _names(*folder):
        return resources.files(__name__).joinpath(*folder, f"{name}.toml").read_text(encoding="utf-8")
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"there is no preset {name!r}; expected one of {', '.join(_names(*folder))}, "
            "or the path of a readable file",
            reason="PRESET_NOT_FOUND",
        ) from error
