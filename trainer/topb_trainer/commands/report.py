"""`topb report`: an experiment's records as tables and figures, in Markdown and in one HTML file."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from topb_trainer.report.contents import contents
from topb_trainer.report.document import Figure, as_html, as_markdown
from topb_trainer.report.study import read_study


@dataclass(frozen=True)
class ReportArguments:
    """Reports an experiment: accuracy by labelled share, differences from Random, ablations, query times.

    Writes report.md with its figures beside it, and report.html with the figures inside. An experiment that
    is not finished is reported as far as it has come; every mean has its n.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """What `topb experiment --out` wrote; several of the same settings on other seeds count as one."""
    out: Path = Path("report")
    """Directory of the report; made where missing."""


def run(argv: Sequence[str]) -> int:
    """Runs `topb report` with the arguments after its name; returns the exit status.

    Raises:
        InvalidDataError: there is nothing to report.
    """
    arguments = tyro.cli(
        ReportArguments, prog="topb report", description=inspect.getdoc(ReportArguments), args=list(argv)
    )
    study = read_study(arguments.results)
    blocks = contents(study)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for block in blocks:
        if isinstance(block, Figure):
            (arguments.out / f"{block.name}.svg").write_text(block.svg + "\n", encoding="utf-8")
    (arguments.out / "report.md").write_text(as_markdown(blocks), encoding="utf-8")
    page = as_html(f"Experiment on {study.settings['data']['name']}", blocks)
    (arguments.out / "report.html").write_text(page, encoding="utf-8")
    print(f"{arguments.out / 'report.html'} · {arguments.out / 'report.md'}")
    return 0
