"""Reports on made-up records, whose figures are worked out by hand."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from support.command_line import topb
from topb_trainer.errors import ConfigurationError, InvalidDataError
from topb_trainer.experiment.records import Record, Settings, writing_records
from topb_trainer.report.contents import contents
from topb_trainer.report.document import Figure, Heading, Paragraph, Table, as_html, as_markdown
from topb_trainer.report.statistics import Summary, crossing, summary_of
from topb_trainer.report.study import LabelsNeeded, Study, read_study

SETTINGS = {
    "data": {"name": "cifar10", "train_images": 1000, "test_images": 100, "classes": 10, "sha256": ""},
    "train": {
        "task": {"width": 16, "epochs": 20},
        "cotrain": {"epochs": 20},
        "vaal": {"epochs": 10},
        "device": "cpu",
    },
}
# Accuracies of three rounds, by method and seed.
ACCURACIES = {
    ("random", 0): (0.50, 0.60, 0.70),
    ("random", 1): (0.52, 0.62, 0.72),
    ("aalu", 0): (0.50, 0.66, 0.74),
    ("aalu", 1): (0.52, 0.66, 0.80),
    ("entropy", 0): (0.50, 0.55, 0.65),
    ("adv_vae", 0): (0.50,),
    ("loss_learn_without_prediction", 0): (0.50,),  # which the paper does not have
}


SECONDS = {"task": 9.0, "test": 1.0, "labelled_features": 0.5, "select": 1.5, "export": 7.0}


def records(
    settings: Settings, accuracies_of: Mapping[tuple[str, int], Sequence[float]] = ACCURACIES
) -> list[Record]:
    return [
        Record(
            method=method,
            seed=seed,
            round=index,
            labelled=100 + 50 * index,
            share=0.1 + 0.05 * index,
            accuracy=accuracy,
            labelled_sha256="",
            picked=[*range(50 if index < 2 else 0)],
            picked_sha256="",
            model_id=None,
            settings_sha256=settings.sha256,
            seconds={**SECONDS, "selector": 2.0 + index},
        )
        for (method, seed), accuracies in accuracies_of.items()
        for index, accuracy in enumerate(accuracies)
    ]


@pytest.fixture
def study() -> Study:
    settings = Settings(SETTINGS)
    return Study(records(settings), settings.values)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"width": 16}, "T is a ResNet18 of width 16, trained"),
        ({"width": 64, "encoder": "vit_tiny", "train": "all"}, "T is a classifier on vit_tiny, trained"),
        (
            {"width": 64, "encoder": "sha256:01", "train": "head"},
            "T is a classifier on sha256:01, whose encoder is frozen, trained",
        ),
    ],
)
def test_a_report_names_the_encoder_of_the_task_model(task: dict[str, object], expected: str) -> None:
    train = SETTINGS["train"] | {"task": {"epochs": 20} | task}
    settings = Settings(SETTINGS | {"train": train})
    about = contents(Study(records(settings), settings.values))[1]
    assert isinstance(about, Paragraph)
    assert expected in about.text


def test_a_summary_has_the_sample_deviation_and_none_for_a_single_value() -> None:
    five = summary_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert five == Summary(3.0, pytest.approx(math.sqrt(2.5)), 5)
    assert five.half_width == pytest.approx(2.7764 * math.sqrt(2.5 / 5), abs=1e-4)
    one = summary_of([7.0])
    assert (one, one.half_width) == (Summary(7.0, None, 1), None)


@pytest.mark.parametrize(("goal", "labels"), [(0.6, 150), (0.5, 100), (0.7, 200), (0.71, None)])
def test_a_curve_reaches_a_goal_between_two_points_at_its_start_or_never(
    goal: float, labels: float | None
) -> None:
    assert crossing((100.0, 200.0, 300.0), (0.5, 0.7, 0.6), goal) == pytest.approx(labels)


def test_differences_are_paired_by_seed(study: Study) -> None:
    # 0.74 − 0.70 and 0.80 − 0.72.
    difference = study.difference("aalu", 2)
    assert difference == Summary(pytest.approx(0.06), pytest.approx(0.02 * math.sqrt(2)), 2)
    assert difference.half_width == pytest.approx(12.7062 * 0.02, abs=1e-5)
    assert study.difference("entropy", 2) == Summary(pytest.approx(-0.05), None, 1)
    assert study.difference("adv_vae", 2) is None


def test_labels_needed_come_from_the_mean_curves_over_common_seeds(study: Study) -> None:
    # Random ends at a mean of 0.71; AALU goes from 0.66 at 150 labels to 0.77 at 200.
    both = {"random": 200.0, "aalu": pytest.approx(150 + 50 * 5 / 11)}
    # With seed 0 alone, Random ends at 0.70; AALU goes from 0.66 to 0.74.
    first = {"random": 200.0, "entropy": None, "aalu": pytest.approx(175)}
    assert study.labels_needed() == [
        LabelsNeeded((0, 1), pytest.approx(0.71), both),
        LabelsNeeded((0,), pytest.approx(0.70), first),
    ]


def test_the_labels_of_random_are_counted_like_those_of_any_method() -> None:
    # Random passes its final accuracy of 0.66 on the way to 0.70.
    settings = Settings(SETTINGS)
    falling = {("random", 0): (0.50, 0.70, 0.66), ("entropy", 0): (0.50, 0.70, 0.80)}
    study = Study(records(settings, falling), settings.values)
    labels = pytest.approx(100 + 50 * 16 / 20)
    assert study.labels_needed() == [LabelsNeeded((0,), 0.66, {"random": labels, "entropy": labels})]
    needed = table_after(contents(study), "Labels needed")
    assert list(needed.rows) == [["Random", "140", "100%"], ["Entropy", "140", "100%"]]


def test_methods_are_compared_on_the_seeds_that_they_share(study: Study) -> None:
    # Entropy has seed 0 alone, where AALU has 0.74.
    assert study.difference("entropy", 2, "aalu") == Summary(pytest.approx(-0.09), None, 1)
    assert study.accuracy("aalu", 2) == Summary(pytest.approx(0.77), pytest.approx(0.03 * math.sqrt(2)), 2)
    assert study.accuracy("aalu", 2, ["aalu", "entropy"]) == Summary(pytest.approx(0.74), None, 1)
    # A method without a record of the round takes no seed from the others.
    assert study.accuracy("aalu", 2, ["aalu", "adv_vae"]) == study.accuracy("aalu", 2)


def test_query_time_is_the_selector_training_and_selection_time_per_100_picks(study: Study) -> None:
    # 50 picks took 0.5 + 2 + 1.5 and 0.5 + 3 + 1.5 seconds.
    expected = Summary(pytest.approx(9.0), pytest.approx(math.sqrt(2)), 2)
    assert study.query_seconds("entropy") == expected


def table_after(blocks: Sequence[object], heading: str) -> Table:
    at = next(i for i, block in enumerate(blocks) if isinstance(block, Heading) and heading in block.text)
    return next(block for block in blocks[at:] if isinstance(block, Table))


def test_the_tables_hold_the_expected_numbers_and_every_mean_has_its_n(study: Study) -> None:
    blocks = contents(study)
    accuracy = table_after(blocks, "Accuracy by labelled share")
    assert list(accuracy.head) == ["method", "10%", "15%", "20%"]
    assert list(accuracy.rows[0]) == ["Random", "51.00 ± 1.41 (2)", "61.00 ± 1.41 (2)", "71.00 ± 1.41 (2)"]
    assert ["advVAE", "50.00 (1)", "–", "–"] in [list(row) for row in accuracy.rows]
    against = table_after(blocks, "Difference from Random")
    assert ["AALU", "+5.00 [-7.71, +17.71] (2)", "+6.00 [-19.41, +31.41] (2)"] in map(list, against.rows)
    assert ["Entropy", "-5.00 (1)", "-5.00 (1)"] in map(list, against.rows)
    needed = table_after(blocks, "Labels needed")
    assert list(needed.rows) == [["Random", "200", "100%"], ["AALU", "173", "86%"]]
    after = blocks[blocks.index(needed) + 1 :]
    assert isinstance(after[0], Paragraph)
    assert after[0].text == "Seed 0 (n = 1); the goal is 70.00 %:"
    on_seed_0 = table_after([Heading("after"), *after], "after")
    assert ["Entropy", "not with 200", "–"] in map(list, on_seed_0.rows)
    aalu = table_after(blocks, "Difference from AALU")
    assert ["Entropy", "-11.00 (1)", "-9.00 (1)"] in map(list, aalu.rows)
    ablations = table_after(blocks, "Table 1")
    assert [row[0] for row in ablations.rows] == ["Random", "advVAE", "lossLearn without prediction", "AALU"]
    times = table_after(blocks, "Table 2")
    assert ["AALU", "9.00 ± 1.15 (4)", "1.00", "1.00"] in map(list, times.rows)
    for table in (accuracy, against, ablations, times):
        for row in table.rows:
            assert all(re.search(r"\(\d+\)$", cell) for cell in row[1:] if re.search(r"\d\.\d+ ", cell))


def test_the_papers_table_1_is_shown_only_for_cifar10(study: Study) -> None:
    assert "90.73 (5)" in as_markdown(contents(study))
    other = Study(study.records, {**SETTINGS, "data": {**SETTINGS["data"], "name": "cifar100"}})
    assert "90.73" not in as_markdown(contents(other))


def test_the_curves_name_each_method_with_its_n(study: Study) -> None:
    figures = {block.name: block.svg for block in contents(study) if isinstance(block, Figure)}
    assert set(figures) == {"curves", "ablations"}
    assert "AALU (n = 2)" in figures["curves"]
    assert "Entropy (n = 1)" in figures["curves"]
    assert "Entropy" not in figures["ablations"]
    again = {block.name: block.svg for block in contents(study) if isinstance(block, Figure)}
    assert again == figures


def test_markdown_and_html_have_the_same_contents_and_html_is_escaped() -> None:
    blocks = [
        Heading("A & b", 1),
        Paragraph("x < y"),
        Table(["m", "1"], [["a", "2"]]),
        Figure("f", "c", "<svg/>"),
    ]
    assert as_markdown(blocks) == "# A & b\n\nx < y\n\n| m | 1 |\n| --- | ---: |\n| a | 2 |\n\n![c](f.svg)\n"
    page = as_html("A & b", blocks)
    assert "<h1>A &amp; b</h1>" in page
    assert "<p>x &lt; y</p>" in page
    assert "<td>2</td>" in page
    assert "<svg/>" in page


def written(out: Path, settings: Settings, kept: Sequence[Record]) -> Path:
    with writing_records(out, settings) as store:
        for one in kept:
            store.publish(one)
    return out


def test_the_report_command_writes_a_self_contained_html_page(tmp_path: Path) -> None:
    settings = Settings(SETTINGS)
    results = written(tmp_path / "results", settings, records(settings))
    assert "report.html" in topb("report", results, "--out", tmp_path / "report").out
    files = {path.name for path in (tmp_path / "report").iterdir()}
    kept = {"experiment.json", "records.jsonl"}
    assert files == {"report.md", "report.html", "curves.svg", "ablations.svg"} | kept
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert not re.search(r'(src|href)="(?!#)', page)
    assert str(tmp_path) not in page


def test_several_directories_of_the_same_settings_are_one_study(tmp_path: Path) -> None:
    settings = Settings(SETTINGS)
    everything = records(settings)
    parts = [[one for one in everything if one.seed == seed] for seed in (0, 1)]
    paths = [written(tmp_path / str(i), settings, part) for i, part in enumerate(parts)]
    found = read_study(paths).records
    assert sorted(found, key=everything.index) == everything
    with pytest.raises(InvalidDataError, match="records of aalu with seed 0 are in another directory too"):
        read_study([paths[0], written(tmp_path / "again", settings, parts[0])])
    other = Settings({**SETTINGS, "train": {}})
    with pytest.raises(InvalidDataError, match="has other settings"):
        read_study([paths[0], written(tmp_path / "other", other, [])])
    with pytest.raises(InvalidDataError, match="no finished round yet"):
        read_study([tmp_path / "other"])


def test_a_report_can_be_made_again_from_its_own_directory(tmp_path: Path) -> None:
    settings = Settings(SETTINGS)
    results = written(tmp_path / "results", settings, records(settings))
    topb("report", results, "--out", tmp_path / "report")
    first = {file.name: file.read_bytes() for file in (tmp_path / "report").iterdir()}
    assert topb("report", tmp_path / "report", "--out", tmp_path / "report").exit_code == 0
    assert {file.name: file.read_bytes() for file in (tmp_path / "report").iterdir()} == first
    outcome = topb("report", tmp_path / "report", "--out", results)
    assert "holds an experiment; choose another --out" in outcome.err
    with (
        pytest.raises(ConfigurationError, match="holds a report") as caught,
        writing_records(tmp_path / "report", settings),
    ):
        pass
    assert caught.value.reason == "EXPERIMENT_IS_REPORT"


@pytest.mark.parametrize("study", ["fashion-mnist", "cifar10"])
def test_the_published_studies_can_be_reported_from_their_own_records(study: str, tmp_path: Path) -> None:
    folder = Path(__file__).parents[4] / "docs" / "results" / study
    assert topb("report", folder, "--out", tmp_path).exit_code == 0
    for name in ("report.md", "report.html"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()


def test_a_report_needs_a_directory() -> None:
    outcome = topb("report")
    assert outcome.exit_code == 2
    assert "Missing argument 'RESULTS...'" in outcome.err


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (lambda _: [], "has no record of the round before it"),
        (lambda one: [replace(one, picked=[1])], "has 150 labelled images, but .* leads to 101"),
        (lambda one: [replace(one, labelled_sha256="other")], "starts from other labelled images than"),
    ],
)
def test_records_that_do_not_follow_from_each_other_are_refused(
    changed: Callable[[Record], list[Record]], match: str, tmp_path: Path
) -> None:
    settings = Settings(SETTINGS)
    kept: list[Record] = []
    for one in records(settings):
        kept += changed(one) if one.key == ("random", 0, 0) else [one]
    with pytest.raises(InvalidDataError, match=match) as caught:
        read_study([written(tmp_path, settings, kept)])
    assert caught.value.reason == "RECORD_MISPLACED"


def test_names_are_shown_as_they_are() -> None:
    name = r"$\frac{1}$ <b>a*b*</b> a|b [x](y) `z` _u_ a_b &amp; \\ x < y"
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "name": name}}
    blocks = contents(Study(records(Settings(settings)), settings))
    (figure,) = (block for block in blocks if isinstance(block, Figure) and block.name == "curves")
    assert html.escape(f"Query strategies · {name}", quote=False) in figure.svg
    page = MarkdownIt("gfm-like", {"linkify": False}).render(as_markdown(blocks))
    assert f"<h1>{html.escape(f'Experiment on {name}')}</h1>" in page
    table = as_markdown([Table([name, "1"], [[name, "2"]])])
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(table)
    assert shown.count(f">{html.escape(name)}</t") == 2


def test_a_report_names_the_versions_of_the_libraries(study: Study) -> None:
    assert "do not name the versions" in as_markdown(contents(study))
    versions = ({"torch": "2.9"}, {"torch": "2.10", "numpy": "2.4"})
    named = [replace(one, libraries=versions[at % 2]) for at, one in enumerate(study.records)]
    assert "Libraries: numpy 2.4, torch 2.10 and 2.9." in as_markdown(contents(Study(named, SETTINGS)))
