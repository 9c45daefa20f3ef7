"""`topb model show`: what a bundle is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import json_format

from topb_scorer.bundle import Bundle, open_bundle


def run(argv: Sequence[str]) -> int:
    """Prints a verified bundle for a person, or with --json its manifest.

    Raises:
        ScorerError: the bundle cannot be opened.
    """
    parser = argparse.ArgumentParser(prog="topb model", description="Look at bundles.")
    actions = parser.add_subparsers(dest="action", required=True)
    show = actions.add_parser("show", help="verify a bundle and print it")
    show.add_argument("bundle", type=Path, help="the bundle's directory")
    show.add_argument("--json", action="store_true", help="print its manifest as JSON")
    arguments = parser.parse_args(argv)
    bundle = open_bundle(arguments.bundle)
    print(json_format.MessageToJson(bundle.manifest) if arguments.json else describe(bundle))
    return 0


def describe(bundle: Bundle) -> str:
    """The bundle in words and figures, one line a fact."""
    manifest = bundle.manifest
    size = sum(file.size_bytes for file in manifest.files)
    resize = bundle.input.resize.replace("_", " ")
    lines = [
        ("model", f"{bundle.model_id}, {size / 2**20:.1f} MiB in {bundle.path}"),
        ("trained by", f"{manifest.method}, round {manifest.round}, seed {manifest.seed}"),
        ("created", manifest.create_time.ToJsonString()),
        ("input", f"uint8 {bundle.input.height}×{bundle.input.width}×3, {resize}"),
        ("classes", f"{len(manifest.classes)}: {_shortened(manifest.classes)}"),
        ("labelled", f"{manifest.labelled_count} images"),
        ("test accuracy", _accuracy(bundle)),
        ("strategies", ", ".join(manifest.strategies)),
    ]
    lines += [(f"output {o.name}", f"(N{_dims(o.shape)}) {o.meaning}") for o in manifest.outputs]
    lines += [
        (f"gate {gate.name}", f"{gate.measured:.3g}, limit {gate.limit:.3g}: {gate.meaning}")
        for gate in manifest.gates
    ]
    lines += [("files", f"{file.name} {file.size_bytes} bytes, verified") for file in manifest.files]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _accuracy(bundle: Bundle) -> str:
    if not bundle.manifest.HasField("test_accuracy"):
        return "not measured: there was no test set"
    return f"{bundle.manifest.test_accuracy:.2%}"


def _shortened(classes: Sequence[str], most: int = 10) -> str:
    return ", ".join(classes[:most]) + (", …" if len(classes) > most else "")


def _dims(shape: Sequence[int]) -> str:
    return "".join(f", {size}" for size in shape)
