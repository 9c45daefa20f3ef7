"""`topb experiment`: methods compared over rounds and seeds, as the paper does; stop it and it carries on."""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from topb_trainer.data.opening import open_dataset
from topb_trainer.errors import ConfigurationError
from topb_trainer.experiment.config import ExperimentConfig
from topb_trainer.experiment.records import Record, writing
from topb_trainer.experiment.run import run_experiment, settings_of
from topb_trainer.methods import METHODS, methods_named
from topb_trainer.presets import experiment_preset_names, load_experiment_preset
from topb_trainer.runtime.device import torch_device


@dataclass(frozen=True)
class ExperimentArguments:
    """Compares methods over rounds and seeds, by the paper's protocol unless told otherwise.

    Each finished method, seed and round is a durable record in --out: stop at any moment, run the same again,
    and it carries on. More methods or seeds can be added later. `topb report` makes tables and figures of it.
    An option given here goes before the preset, the preset before the default; the defaults are the paper's.
    """

    out: Path
    """Directory of records; new, or that of the experiment to carry on."""
    methods: tuple[str, ...] = ("random", "entropy", "core_set", "vaal", "aalu")
    """Compared, in this order within each seed."""
    seeds: int = 5
    """How many runs of every method."""
    first_seed: int = 0
    """The seeds are this one and those that follow."""
    test: Path | None = None
    """Test images, where --data is a path; laid out like the training images."""
    data_root: Path = Path("data")
    """Where published data sets lie, or are downloaded to."""
    preset: str | None = None
    """Settings by name, or the path of a TOML file."""
    quiet: bool = False
    """Show no progress bars; one line a record stays."""
    config: Annotated[ExperimentConfig, tyro.conf.arg(name="")] = field(default_factory=ExperimentConfig)


def run(argv: Sequence[str]) -> int:
    """Runs `topb experiment` with the arguments after its name; returns the exit status.

    Raises:
        TrainerError, ScorerError: what went wrong, with a `reason`.
    """
    arguments = _parse(argv)
    config = arguments.config
    # What can be wrong at once is said before minutes of reading and training.
    methods = methods_named(arguments.methods)
    if arguments.seeds < 1 or arguments.first_seed < 0:
        raise ConfigurationError(
            "--seeds is at least 1 and --first-seed at least 0; "
            f"not {arguments.seeds}, {arguments.first_seed}",
            reason="INVALID_CONFIGURATION",
        )
    torch_device(config.train.device)
    if config.data is None:
        raise ConfigurationError(
            "no data set is named: give --data, or a --preset that has one", reason="DATASET_MISSING"
        )
    data = open_dataset(
        config.data,
        arguments.test,
        arguments.data_root,
        config.train.image,
        progress=not arguments.quiet,
    ).limited(config.protocol.train_images, config.protocol.test_images, seed=0)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with writing(arguments.out, settings_of(config, data)) as store:
        run_experiment(data, config, methods, seeds, store, on_record=_Teller(), progress=not arguments.quiet)
    print(f"done: {arguments.out}; `topb report {arguments.out}` makes tables and figures of it")
    return 0


def _parse(argv: Sequence[str]) -> ExperimentArguments:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    preset = first.parse_known_args(list(argv))[0].preset
    about = inspect.getdoc(ExperimentArguments)
    presets = ", ".join(experiment_preset_names())
    return tyro.cli(
        ExperimentArguments,
        prog="topb experiment",
        description=f"{about} Methods: {', '.join(METHODS)}. Presets: {presets}.",
        args=list(argv),
        default=ExperimentArguments(
            out=tyro.MISSING,
            preset=preset,
            config=ExperimentConfig() if preset is None else load_experiment_preset(preset),
        ),
    )


class _Teller:
    """One line on standard error for each record."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, record: Record, fresh: bool) -> None:
        now = time.monotonic()
        took = f"{now - self._last:.0f} s" if fresh else "was there"
        self._last = now
        print(
            f"seed {record.seed} · {record.method} · {record.share:.0%} labelled ({record.labelled}) · "
            f"accuracy {record.accuracy:.2%} · {took}",
            file=sys.stderr,
            flush=True,
        )
