"""Assemble the headings, paragraphs, tables and figures of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from topb_trainer.config import RESNET18
from topb_trainer.methods import METHODS, Method
from topb_trainer.report import paper
from topb_trainer.report.document import Block, Figure, Heading, Paragraph, Table
from topb_trainer.report.figures import curves
from topb_trainer.report.statistics import CONFIDENCE, Summary
from topb_trainer.report.study import BASELINE, Study

_MISSING = "–"


def contents(study: Study) -> list[Block]:
    """Return the blocks of the report."""
    data = study.settings["data"]
    blocks: list[Block] = [Heading(f"Experiment on {data['name']}", 1), Paragraph(_about(study))]
    blocks += [
        Heading("Accuracy by labelled share"),
        Paragraph(_NOTE_ON_CELLS + _NOTE_ON_N),
        _accuracies(study, study.methods, study.rounds),
    ]
    strategies = [method for method in study.methods if not method.is_ablation]
    ablations = [
        method for method in study.methods if method.is_ablation or method.name in {BASELINE, "aalu"}
    ]
    if not any(method.is_ablation for method in ablations):
        ablations = []
    for name, shown, title, among in (
        ("curves", strategies, "Query strategies", ()),
        ("ablations", ablations, "Ablations", [method.name for method in ablations]),
    ):
        if shown:
            caption = f"{title} on {data['name']}: accuracy by labelled share, as in the paper's Fig. 2"
            drawn = curves(study, shown, f"{title} · {data['name']}", among)
            blocks.append(Figure(name, caption, drawn))
    for baseline in (BASELINE, "aalu"):
        blocks += _differences(study, baseline)
    blocks += _labels_needed(study)
    if ablations:
        blocks += _table_1(study, ablations)
    blocks += _table_2(study)
    return blocks


_NOTE_ON_CELLS = (
    "Test accuracy in percent: mean ± standard deviation over seeds, with the number n of seeds in brackets."
)
_NOTE_ON_N = (
    " Means of different n are over different seeds. To compare methods, use the differences below, which "
    "are paired by seed."
)


def _about(study: Study) -> str:
    data, train = study.settings["data"], study.settings["train"]
    seeds = {method.title: len(study.seeds(method.name)) for method in study.methods}
    least, most = min(seeds.values()), max(seeds.values())
    count = f"{least} to {most} seeds" if least < most else f"{most} seed{'s' if most > 1 else ''} each"
    return (
        f"{data['train_images']} training and {data['test_images']} test images of {data['classes']} "
        f"classes. {len(study.methods)} methods, {count}; T is {_task_model(train['task'])}, "
        f"trained for {train['task']['epochs']} epochs a round; "
        f"the selectors for {train['cotrain']['epochs']} (VAAL {train['vaal']['epochs']}). "
        f"Device: {train['device']}. {_libraries(study)}"
    )


def _task_model(task: Mapping[str, Any]) -> str:
    encoder = task.get("encoder", RESNET18)  # absent from older records
    name = f"a ResNet18 of width {task['width']}" if encoder == RESNET18 else f"a classifier on {encoder}"
    return f"{name}, whose encoder is frozen" if task.get("train") == "head" else name


def _libraries(study: Study) -> str:
    """Return a sentence that names the versions of the libraries, all that occur in the records."""
    versions: dict[str, set[str]] = {}
    for record in study.records:
        for name, version in record.libraries.items():
            versions.setdefault(name, set()).add(version)
    if not versions:
        return "The records do not name the versions of the libraries."
    named = (f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items()))
    return f"Libraries: {', '.join(named)}."


def _by_round(
    study: Study, methods: Sequence[Method], rounds: Sequence[int], cell: Callable[[str, int], str]
) -> Table:
    """Return a table with a row for each method and a column for each round."""
    head = ["method", *(f"{study.shares[index]:.0%}" for index in rounds)]
    return Table(
        head, [[method.title, *(cell(method.name, index) for index in rounds)] for method in methods]
    )


def _accuracies(
    study: Study, methods: Sequence[Method], rounds: Sequence[int], among: Sequence[str] = ()
) -> Table:
    return _by_round(study, methods, rounds, lambda name, index: _percent(study.accuracy(name, index, among)))


def _differences(study: Study, baseline: str) -> list[Block]:
    others = [method for method in study.methods if method.name != baseline]
    # In the first round all methods share one T, and do not differ.
    rounds = [index for index in study.rounds if index > 0]
    if len(others) == len(study.methods) or not others or not rounds:
        return []
    title = METHODS[baseline].title
    return [
        Heading(f"Difference from {title}"),
        Paragraph(
            f"Accuracy minus that of {title} in percentage points, paired by seed over the n seeds that have "
            f"both: mean, {CONFIDENCE:.0%} confidence interval (Student's t over seeds), n. An interval that "
            "contains 0 shows no difference. Among many methods and rounds, some intervals exclude 0 by "
            "chance."
        ),
        _by_round(
            study, others, rounds, lambda name, index: _interval(study.difference(name, index, baseline))
        ),
    ]


def _labels_needed(study: Study) -> list[Block]:
    found = study.labels_needed()
    if not found:
        return []
    blocks: list[Block] = [
        Heading("Labels needed to reach Random's final accuracy"),
        Paragraph(
            "The labels at which the mean curve of a method, linear between rounds, first reaches Random's "
            "mean accuracy in the last round. The same rule counts the labels of Random. All curves of a "
            "table are means over the same seeds; those of different tables cannot be compared."
        ),
    ]
    for needed in found:
        seeds, reached = needed.seeds, needed.labels[BASELINE]
        assert reached is not None  # The curve ends at the goal.
        named = f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} (n = {len(seeds)})"
        last = study.labelled[study.rounds[-1]]
        rows = [
            [METHODS[name].title, f"not with {last}", _MISSING]
            if labels is None
            else [METHODS[name].title, f"{labels:.0f}", f"{labels / reached:.0%}"]
            for name, labels in needed.labels.items()
        ]
        blocks += [
            Paragraph(f"{named}; the goal is {100 * needed.goal:.2f} %:"),
            Table(["method", "labels", "share of Random's"], rows),
        ]
    return blocks


def _table_1(study: Study, ablations: Sequence[Method]) -> list[Block]:
    rounds = [index for index in study.rounds if index > 0]
    if not rounds:
        return []
    blocks: list[Block] = [
        Heading("Ablations, in the layout of the paper's Table 1"),
        Paragraph(f"{_NOTE_ON_CELLS} All cells of a column are over the same seeds."),
        _accuracies(study, ablations, rounds, [method.name for method in ablations]),
    ]
    if _is_cifar10(study):
        head = ["the paper's", *(f"{share:.0%}" for share in paper.SHARES)]
        rows = [
            [method.title, *(f"{value:.2f} (5)" for value in paper.TABLE_1[method.name])]
            for method in ablations
            if method.name in paper.TABLE_1
        ]
        blocks += [
            Paragraph("The results of the paper, whose settings may differ from those above; n = 5:"),
            Table(head, rows),
        ]
    return blocks


def _table_2(study: Study) -> list[Block]:
    aalu = study.query_seconds("aalu")
    rows = []
    for method in study.methods:
        found = study.query_seconds(method.name)
        if found is None:
            continue
        ratio = f"{found.mean / aalu.mean:.2f}" if aalu is not None and aalu.mean > 0 else _MISSING
        reported = paper.TABLE_2.get(method.name)
        paper_ratio = _MISSING if reported is None else f"{reported / paper.TABLE_2['aalu']:.2f}"
        seconds = f"{found.mean:.2f}" + ("" if found.deviation is None else f" ± {found.deviation:.2f}")
        rows.append([method.title, f"{seconds} ({found.n})", ratio, paper_ratio])
    if not rows:
        return []
    return [
        Heading("Query time, as in the paper's Table 2"),
        Paragraph(
            "Seconds per 100 picks, over rounds and seeds: features of the labelled images, training of the "
            "selector, and selection from the exported bundle, which includes scoring the pool but not the "
            "export. Mean ± standard deviation, with the number n of timed rounds in brackets. Other "
            "programs on the machine slow them down. The ratios of the paper were measured on one TITAN V."
        ),
        Table(["method", "seconds per 100 picks", "× AALU", "× AALU in the paper"], rows),
    ]


def _percent(summary: Summary | None) -> str:
    if summary is None:
        return _MISSING
    spread = "" if summary.deviation is None else f" ± {100 * summary.deviation:.2f}"
    return f"{100 * summary.mean:.2f}{spread} ({summary.n})"


def _interval(summary: Summary | None) -> str:
    if summary is None:
        return _MISSING
    mean = 100 * summary.mean
    if summary.half_width is None:
        return f"{mean:+.2f} ({summary.n})"
    half = 100 * summary.half_width
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}] ({summary.n})"


def _is_cifar10(study: Study) -> bool:
    name = str(study.settings["data"]["name"])
    return name == "cifar10" or name.startswith("cifar10_")
