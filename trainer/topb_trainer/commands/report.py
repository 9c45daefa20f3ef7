"""The `topb report` command, which turns the records of an experiment into tables and figures."""

from __future__ import annotations

from pathlib import Path

import click

from topb.commands.options import PATH, Command, Option
from topb_trainer.experiment.records import Settings, keep_records
from topb_trainer.report.contents import contents
from topb_trainer.report.document import Figure, as_html, as_markdown
from topb_trainer.report.study import read_study


@click.command(
    cls=Command,
    params=[
        click.Argument(["results"], nargs=-1, required=True, type=PATH),
        Option("--out DIR", "Directory to write the report to.", default=Path("report")),
    ],
)
def run(results: tuple[Path, ...], out: Path) -> None:
    """Report accuracies by labelled share, differences from Random, ablations and query times.

    RESULTS are directories that topb experiment --out wrote, or earlier reports. Several directories with the
    same settings and different seeds count as one experiment.

    The command writes report.md with its figures beside it, and report.html with the figures inside. It keeps
    the settings and the records beside them, in experiment.json and records.jsonl, so that the report can be
    made again from its own directory. An unfinished experiment is reported with the rounds that are finished.
    Every mean is given with its n.
    """
    study = read_study(results)
    if out.resolve() not in {path.resolve() for path in results}:
        keep_records(out, Settings(study.settings), study.records)
    blocks = contents(study)
    out.mkdir(parents=True, exist_ok=True)
    for block in blocks:
        if isinstance(block, Figure):
            (out / f"{block.name}.svg").write_text(block.svg + "\n", encoding="utf-8")
    (out / "report.md").write_text(as_markdown(blocks), encoding="utf-8")
    page = as_html(f"Experiment on {study.settings['data']['name']}", blocks)
    (out / "report.html").write_text(page, encoding="utf-8")
    print(f"{out / 'report.html'} · {out / 'report.md'}")
