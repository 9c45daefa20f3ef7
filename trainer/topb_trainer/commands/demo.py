"""The `topb demo` command, which trains, exports and serves a round, selects over gRPC, and shows the
picks."""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

import topb
from topb.commands.options import Command, Option
from topb.commands.output import table_text
from topb_scorer.bundle import Bundle, open_bundle
from topb_trainer.demo.contact_sheet import Exhibit, write_contact_sheet
from topb_trainer.demo.images import DemoImages, LabelledImage, digits, images_at, split
from topb_trainer.errors import TrainerError

_BUDGET_SHARE = 0.05
_PICKS_SHOWN = 10
_EXHIBITS = 36
_MARKER = ".topb-demo"


class DemoError(TrainerError):
    """A step of the demo failed."""


@click.command(
    cls=Command,
    params=[
        Option(
            "--data PATH",
            "Labelled images: Parquet with id, image and label; a folder of class/file.jpg; or WebDataset "
            "with a member .cls in each sample.",
            show_default="handwritten digits",
        ),
        Option("--limit N", "Number of images to draw.", show_default="all"),
        Option("--budget N", "Number of images to pick.", show_default="5 % of the pool"),
        Option("--seed N", "Seed of the split and the training.", default=0),
        Option("--out DIR", "Output directory. It is emptied first.", default=Path("demo-out")),
    ],
)
def run(data: Path | None, limit: int | None, budget: int | None, seed: int, out: Path) -> None:
    """Train a round, export it, serve it, select over gRPC, and show what was picked."""
    started = time.monotonic()
    _empty(out)
    _say("1 of 4: images")
    source = digits() if data is None else images_at(data)
    images = split(source, out / "images", limit=limit, seed=seed)
    name = "scikit-learn's digits" if data is None else data.name
    print(
        f"{name}: {len(images.labelled)} labelled, {len(images.pool)} in the pool, {len(images.test)} to test"
    )
    _say("2 of 4: train a round of AALU and export it")
    bundle = _train(images, out, seed, flip=data is not None)
    budget = budget or max(1, round(len(images.pool) * _BUDGET_SHARE))
    with _served(out) as address:
        _say(f"4 of 4: select {budget} of {len(images.pool)} images over gRPC")
        with topb.Client(address, timeout=600) as client:
            result = client.select_batch((images.folder / "pool.parquet").resolve(), budget)
            others = _scored_sample(client, images, set(result.ids), seed)
    classes = list(bundle.manifest.classes)
    picked = [_exhibit(images.pool[pick.id], pick, classes) for pick in result.picks]
    not_picked = [_exhibit(image, scores, classes) for image, scores in others]
    _print_table(result, classes, images)
    sheet = out / "contact-sheet.png"
    write_contact_sheet(
        sheet,
        picked=picked[:_EXHIBITS],
        not_picked=sorted(not_picked[:_EXHIBITS], key=lambda exhibit: -exhibit.score),
        title=f"{len(result.picks)} of {len(images.pool)} picked by {result.strategy}",
    )
    print(
        f"\nT is wrong on {_share_wrong(picked)} of the {len(picked)} picked "
        f"and on {_share_wrong(not_picked)} of {len(not_picked)} drawn from the rest.\n"
    )
    accuracy = bundle.manifest.test_accuracy
    size = bundle.graph_bytes / 2**20
    gates = ", ".join(f"{gate.name} {gate.measured:.2g} ≤ {gate.limit:.2g}" for gate in bundle.manifest.gates)
    print(f"trained   test accuracy {accuracy:.1%} from {len(images.labelled)} labels")
    print(f"exported  {bundle.path}, graphs of {size:.1f} MiB; gates: {gates}")
    print(f"selected  {len(result.picks)} in {result.elapsed_seconds:.1f} s")
    print(f"sheet     {sheet}")
    print(f"done in {time.monotonic() - started:.0f} s")


def _empty(out: Path) -> None:
    """Make `out` an empty directory; raise DemoError if it holds anything but an earlier demo."""
    if out.exists() and not (out / _MARKER).is_file() and any(out.iterdir()):
        raise DemoError(
            f"{out} is not empty and holds no earlier demo; name another --out", reason="OUT_NOT_EMPTY"
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARKER).touch()


def _train(images: DemoImages, out: Path, seed: int, *, flip: bool) -> Bundle:
    command = ["train"]
    for name in ("labelled", "pool", "test"):
        command += [f"--{name}", str(images.folder / f"{name}.parquet")]
    command += ["--out", str(out / "bundles"), "--preset", "small", "--seed", str(seed)]
    if not flip:
        # Mirrored digits are no longer digits.
        command.append("--task.no-horizontal-flip")
    _show(command)
    if subprocess.run(_topb(command), check=False).returncode:
        raise DemoError("training failed; see the error above", reason="DEMO_TRAINING")
    (path,) = (out / "bundles").iterdir()
    return open_bundle(path)


@contextmanager
def _served(out: Path) -> Iterator[str]:
    """Serve on a free port, in a process of its own, while the block runs; yield the address."""
    _say("3 of 4: serve it")
    command = ["serve", "--models", str(out / "bundles"), "--listen", "127.0.0.1:0", "--allow-root", str(out)]
    _show(command)
    with subprocess.Popen(_topb(command), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = server.stdout.readline().strip()
            if not ready:
                raise DemoError("the server failed; see the error above", reason="DEMO_SERVER")
            print(ready)
            yield ready.split()[-1]
        finally:
            server.terminate()


def _scored_sample(
    client: topb.Client, images: DemoImages, picked: set[str], seed: int
) -> list[tuple[LabelledImage, topb.ImageScores]]:
    """Return a random sample of the images that were not picked, as many as one call scores, with scores."""
    rest = sorted(set(images.pool) - picked)
    limit = client.server_info().limits.max_images_per_score_call
    drawn = [images.pool[id_] for id_ in random.Random(seed).sample(rest, min(len(rest), limit))]
    outcomes = zip(drawn, client.score_images([image.image for image in drawn]), strict=True)
    return [(image, scores) for image, scores in outcomes if isinstance(scores, topb.ImageScores)]


def _exhibit(image: LabelledImage, scored: topb.Pick | topb.ImageScores, classes: Sequence[str]) -> Exhibit:
    assert scored.score is not None, "the demo's model has an assistant"
    return Exhibit(image.image, scored.score, classes[scored.predicted_class], image.label)


def _share_wrong(exhibits: Sequence[Exhibit]) -> str:
    wrong = sum(exhibit.predicted != exhibit.label for exhibit in exhibits)
    return f"{wrong / len(exhibits):.0%}" if exhibits else "none"


def _print_table(result: topb.SelectionResult, classes: Sequence[str], images: DemoImages) -> None:
    rows = [
        {
            "rank": str(pick.rank),
            "id": pick.id,
            "score": f"{pick.score:.4f}",
            "entropy": f"{pick.entropy:.3f}",
            "p": f"{pick.probability:.2f}",
            "predicted → true": f"{classes[pick.predicted_class]} → {images.pool[pick.id].label}",
        }
        for pick in result.picks[:_PICKS_SHOWN]
    ]
    print(table_text(rows, right_aligned={"rank", "score", "entropy", "p"}))
    accounts = result.accounts
    print(
        f"read {accounts.read} = scored {accounts.scored} + skipped {sum(accounts.skipped.values())} "
        f"+ duplicate {accounts.duplicate} + excluded {accounts.excluded}"
    )


def _topb(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "topb", *command]


def _show(command: Sequence[str]) -> None:
    print(f"$ topb {shlex.join(command)}", flush=True)


def _say(heading: str) -> None:
    print(f"\n── {heading}", flush=True)
