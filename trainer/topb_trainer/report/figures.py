"""Draw curves as in the paper's Fig. 2: accuracy over the labelled share, with one line for each method."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from topb_trainer.methods import Method
from topb_trainer.report.study import Study

_MARKERS = "osD^vP*X<>"
# The palette of Okabe and Ito, which colour-blind readers can tell apart, with two more.
_COLOURS = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#8C8C8C",
    "#CC79A7",
    "#F0E442",
    "#D55E00",
    "#7B5EA7",
    "#0072B2",
)


def curves(study: Study, methods: Sequence[Method], title: str, among: Sequence[str] = ()) -> str:
    """Return an <svg> element: mean accuracies in percent, with standard deviations over seeds as bars.

    Only the seeds that all methods of `among` have are shown; by default, each method has all of its seeds.
    """
    # A dollar sign in a name is a dollar sign.
    with rc_context(
        {"svg.hashsalt": "topb", "svg.fonttype": "none", "font.size": 10, "text.parse_math": False}
    ):
        figure = Figure(figsize=(7.5, 4.8), layout="constrained")
        axes = figure.subplots()
        for place, method in enumerate(methods):
            points = [
                (100 * study.shares[index], summary)
                for index in study.rounds
                if (summary := study.accuracy(method.name, index, among)) is not None
            ]
            axes.errorbar(
                [share for share, _ in points],
                [100 * summary.mean for _, summary in points],
                yerr=[100 * (summary.deviation or 0.0) for _, summary in points],
                label=f"{method.title} (n = {_counts([summary.n for _, summary in points])})",
                marker=_MARKERS[place % len(_MARKERS)],
                color=_COLOURS[place % len(_COLOURS)],
                markersize=4,
                linewidth=1.2,
                capsize=2,
                elinewidth=0.7,
            )
        axes.set_xlabel("labelled share of the training set (%)")
        axes.set_ylabel("test accuracy (%), mean ± standard deviation")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    # The XML prologue is not allowed inside HTML.
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :].rstrip()


def _counts(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least} to {most}"
