"""Settings by name: the TOML files in this folder, or one of the caller's.

Those of a round lie here, those of an experiment in `experiments/`.
"""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from topb_trainer.config import TrainConfig
from topb_trainer.errors import ConfigurationError
from topb_trainer.experiment.config import ExperimentConfig

Config = TypeVar("Config")

_EXPERIMENTS = "experiments"


def preset_names() -> list[str]:
    """Returns the names of the presets that come with the package, sorted."""
    return _names()


def experiment_preset_names() -> list[str]:
    """Returns the names of the presets for experiments, sorted."""
    return _names(_EXPERIMENTS)


def load_preset(name: str) -> TrainConfig:
    """Returns the settings of a preset by its name, or of a TOML file by its path; the rest by default.

    Raises:
        ConfigurationError: there is no such preset, it is not TOML, or it sets what there is not.
    """
    return from_mapping(TrainConfig, _settings(name), f"preset {name}")


def load_experiment_preset(name: str) -> ExperimentConfig:
    """Returns the settings of an experiment, as `load_preset` does those of a round; errors likewise."""
    return from_mapping(ExperimentConfig, _settings(name, _EXPERIMENTS), f"preset {name}")


def from_mapping(config: type[Config], settings: Mapping[str, Any], where: str) -> Config:
    """Builds a configuration from nested settings, as TOML holds them; `where` is named in errors.

    Raises:
        ConfigurationError: a key that the configuration does not have, or a value of another type.
    """
    types_of = typing.get_type_hints(config)
    known = [field.name for field in fields(config)]  # type: ignore[arg-type]
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise ConfigurationError(
                f"{where}: unknown setting {key!r}; there are {', '.join(known)}", reason="UNKNOWN_SETTING"
            )
        values[key] = _value(types_of[key], value, f"{where}: {key}")
    return config(**values)


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
            f"no preset {name!r}: neither one of {', '.join(_names(*folder))} nor a file that can be read",
            reason="PRESET_NOT_FOUND",
        ) from error


def _value(kind: Any, value: Any, where: str) -> Any:
    """Returns `value` as `kind`, one of the kinds that config.py uses."""
    if is_dataclass(kind) and isinstance(value, Mapping):
        return from_mapping(typing.cast("type[Any]", kind), value, where)
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        (item, _) = typing.get_args(kind)
        return tuple(_value(item, one, where) for one in value)
    if typing.get_origin(kind) is types.UnionType:
        (kind,) = (one for one in typing.get_args(kind) if one is not types.NoneType)
    if kind is float and type(value) is int:
        return float(value)
    if typing.get_origin(kind) is Literal:
        if value in typing.get_args(kind):
            return value
        raise ConfigurationError(
            f"{where} is one of {', '.join(map(str, typing.get_args(kind)))}; not {value!r}",
            reason="INVALID_SETTING",
        )
    # type(), not isinstance(): to Python true is an int.
    if type(value) is kind:
        return value
    raise ConfigurationError(f"{where} is {value!r}; expected {_spoken(kind)}", reason="INVALID_SETTING")


def _spoken(kind: Any) -> str:
    if is_dataclass(kind):
        return "a table of settings"
    if typing.get_origin(kind) is tuple:
        return "a list"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
