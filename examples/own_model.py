"""Select with a classifier of your own, label, train AALU on its encoder, and select again.

    python examples/own_model.py model.onnx photos/ labels.json rounds/ --features embedding --logits logits \
        --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225

This needs the trainer: pip install 'topb[trainer]'. The options are those of `topb import`; docs/import.md
describes them. labels.json, the class of each photo by its path below the folder, takes the place of a person
who labels. The photos are read by the encoder once for selecting, and the second selection reads none.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from topb_scorer.in_process import select_batch

BUDGET = 30


def topb(*arguments: str) -> dict[str, Any]:
    """Run a command of topb, and return what it prints with --json."""
    command = [sys.executable, "-m", "topb", *arguments, "--json"]
    printed: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return printed


def main(model: str, photos: Path, oracle: Path, folder: Path, options: list[str]) -> None:
    bundles, state = str(folder / "bundles"), folder / "state"
    imported = topb("import", model, "--out", bundles, "--images", str(photos), *options)

    # The features of the photos are kept in `state`. Nothing is labelled yet, which is what typiclust is for.
    first = select_batch(photos, BUDGET, bundle=imported["path"], strategy="typiclust", state=state)
    print(f"{len(first)} photos to label, of {first.accounts.read}")

    classes = json.loads(oracle.read_text(encoding="utf-8"))
    labelled = folder / "labelled.csv"
    with labelled.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "path", "label"])
        rows.writerows([id_, photos.resolve() / id_, classes[id_]] for id_ in first.ids)

    encoder = ["--task.encoder", imported["path"], "--task.train", "head"]
    data = ["--labelled", str(labelled), "--pool", str(photos), "--out", bundles]
    trained = topb("train", "--preset", "head", *data, *encoder)

    second = select_batch(photos, BUDGET, bundle=trained["path"], strategy="aalu", state=state)
    print(f"{len(second)} more, without the {second.accounts.excluded_labelled} that are labelled")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
