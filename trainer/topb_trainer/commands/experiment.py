"""The `topb experiment` command, which compares methods over rounds and seeds and resumes if it was
stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topb.commands.options import Option
from topb_trainer.commands.dataclass_options import (
    SettingsCommand,
    dataclass_options,
    from_options,
    given_settings,
    preset_option,
    require_writable,
)
from topb_trainer.errors import ConfigurationError
from topb_trainer.experiment.config import ExperimentConfig, refuse_replaced
from topb_trainer.methods import METHODS, methods_named
from topb_trainer.presets import experiment_preset_names, load_experiment_preset

if TYPE_CHECKING:
    from topb_trainer.experiment.records import Record


@click.command(
    cls=SettingsCommand,
    params=[
        Option(
            "--out DIR",
            "Directory of records: a new one, or the directory of the experiment to resume.",
            required=True,
        ),
        Option(
            "--methods NAME...",
            f"Methods to compare, in this order within each seed: {', '.join(METHODS)}.",
            multiple=True,
            default=("random", "entropy", "core_set", "vaal", "aalu"),
            shell_complete=lambda _context, _option, word: [
                name for name in METHODS if name.startswith(word)
            ],
        ),
        Option("--seeds N", "Number of seeds. Every method runs once with each.", default=5),
        Option("--first-seed N", "First of the consecutive seeds.", default=0),
        Option(
            "--test PATH", "Test images, laid out like the training images. Required if --data is a path."
        ),
        Option(
            "--data-root DIR",
            "Directory of published data sets. Missing ones are downloaded into it.",
            default=Path("data"),
        ),
        preset_option(experiment_preset_names(), load_experiment_preset),
        Option("--quiet", "Show no progress within a round; each record still prints one line."),
        *dataclass_options(ExperimentConfig()),
    ],
)
def run(
    out: Path,
    methods: tuple[str, ...],
    seeds: int,
    first_seed: int,
    test: Path | None,
    data_root: Path,
    quiet: bool,
    **settings: Any,
) -> None:
    """Compare methods over rounds and seeds. The default protocol is the paper's.

    Each finished round of a method and seed is a durable record in --out: stop the command at any moment and
    repeat it to resume. More methods or seeds can be added later. topb report makes tables and figures of the
    records.
    """
    # Imported here because torch takes seconds to import; help, completion and usage errors need not wait.
    from topb_trainer.data.opening import labelled_vectors, open_dataset
    from topb_trainer.encoders.opening import completed, for_rows
    from topb_trainer.experiment.records import writing_records
    from topb_trainer.experiment.run import run_experiment, settings_of
    from topb_trainer.runtime.data_parallel import devices_from
    from topb_trainer.runtime.device import torch_device
    from topb_trainer.task import require_images_for_processes

    refuse_replaced(given_settings(click.get_current_context(), ExperimentConfig()))
    config = from_options(ExperimentConfig(), settings)
    vectors = labelled_vectors(config.data)
    config = replace(config, train=completed(for_rows(config.train, vectors)))
    # Fail before minutes of reading and training.
    compared = methods_named(methods)
    if seeds < 1 or first_seed < 0:
        raise ConfigurationError(
            f"--seeds is {seeds} and --first-seed is {first_seed}; expected at least 1 and at least 0",
            reason="INVALID_CONFIGURATION",
        )
    devices_from(torch_device(config.train.device), config.train.task.processes)
    require_writable(out)
    if config.data is None:
        raise ConfigurationError(
            "no data set is named: give --data, or a --preset that has one", reason="DATASET_MISSING"
        )
    data = open_dataset(
        config.data,
        test,
        data_root,
        config.train.image,
        train_images=config.protocol.train_images,
        test_images=config.protocol.test_images,
        progress=not quiet,
    )
    counts = config.protocol.labelled_counts(len(data.train.ids))
    require_images_for_processes(counts[0], config.train.task)
    with writing_records(out, settings_of(config, data)) as store:
        run_experiment(
            data,
            config,
            compared,
            range(first_seed, first_seed + seeds),
            store,
            on_record=_record_printer(),
            progress=not quiet,
        )
    print(f"done: {out}; `topb report {out}` makes tables and figures of it")


def _record_printer() -> Callable[[Record, bool], None]:
    """Return a function that prints one line for each record on standard error."""
    last = time.monotonic()

    def print_record(record: Record, fresh: bool) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        took = f"{last - before:.0f} s" if fresh else "already recorded"
        print(
            f"seed {record.seed} · {record.method} · {record.share:.0%} labelled ({record.labelled}) · "
            f"accuracy {record.accuracy:.2%} · {took}",
            file=sys.stderr,
            flush=True,
        )

    return print_record
