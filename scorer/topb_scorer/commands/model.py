"""`topb model`: show, verify and list bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from google.protobuf import json_format

from topb.commands.options import JSON, PATH, Group
from topb.commands.output import minute, print_json, table_text
from topb.v1 import bundle_pb2
from topb_scorer.bundle import IMPORTED_METHOD, Bundle, open_bundle
from topb_scorer.scoring.model_catalog import ModelCatalog

_FEATURE_TYPES: dict[int, str] = {
    bundle_pb2.FEATURE_TYPE_FLOAT32: "float32",
    bundle_pb2.FEATURE_TYPE_FLOAT16: "rounded to float16",
}


@click.group(cls=Group)
def run() -> None:
    """Show, verify and list bundles."""


@run.command("show", params=[click.Argument(["bundle"], type=PATH), JSON])
def _show(bundle: Path, as_json: bool) -> None:
    """Verify the files of a bundle and describe it.

    BUNDLE is the directory of the bundle. With --json, its manifest is printed.
    """
    opened = open_bundle(bundle)
    print(json_format.MessageToJson(opened.manifest) if as_json else describe(opened))


@run.command("list", params=[click.Argument(["directory"], metavar="DIR", type=PATH), JSON])
def _list(directory: Path, as_json: bool) -> None:
    """Verify the bundles in a directory and list them, the latest first.

    DIR is a directory of bundles, as for topb serve --models. Bundles that cannot be opened are reported on
    standard error.
    """
    bundles = sorted(ModelCatalog(directory).bundles(), key=_created, reverse=True)
    if as_json:
        print_json([_as_dict(bundle) for bundle in bundles])
    elif bundles:
        numbers = {"round", "classes", "labelled", "accuracy"}
        print(table_text([_row(bundle) for bundle in bundles], right_aligned=numbers))
    else:
        print("No bundles.")


def describe(bundle: Bundle) -> str:
    """Return a description of the bundle, one fact per line."""
    manifest = bundle.manifest
    size = sum(file.size_bytes for file in manifest.files)
    accuracy = _accuracy(bundle) or "not measured: there was no test set"
    lines = [
        ("model", f"{bundle.model_id}, {size / 2**20:.1f} MiB in {bundle.path}"),
        (
            ("origin", "imported")
            if manifest.method == IMPORTED_METHOD
            else ("trained by", f"{manifest.method}, round {manifest.round}, seed {manifest.seed}")
        ),
        ("created", manifest.create_time.ToJsonString()),
        ("input", _input(bundle)),
        ("encoder", bundle.encoder_id or "none"),
        ("features", _FEATURE_TYPES.get(manifest.feature_type, "of an unknown type")),
        (
            "classes",
            _classes(manifest.classes),
        ),
        ("labelled", f"{manifest.labelled_count} images"),
        ("test accuracy", accuracy),
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


def _input(bundle: Bundle) -> str:
    if bundle.encoder is None:
        return f"vectors of {bundle.output_shape('features')[0]} numbers"
    resize = bundle.input.resize.value.replace("_", " ")
    return f"uint8 {bundle.input.height}×{bundle.input.width}×3, {resize}"


def _row(bundle: Bundle) -> dict[str, str]:
    manifest = bundle.manifest
    return {
        "model": bundle.model_id,
        "method": manifest.method,
        "round": str(manifest.round),
        "classes": str(len(manifest.classes)),
        "labelled": f"{manifest.labelled_count:,}",
        "accuracy": _accuracy(bundle),
        "created": minute(manifest.create_time.ToDatetime()),
    }


def _as_dict(bundle: Bundle) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "id": bundle.model_id,
        "method": manifest.method,
        "round": manifest.round,
        "classes": list(manifest.classes),
        "labelled_count": manifest.labelled_count,
        "test_accuracy": manifest.test_accuracy if manifest.HasField("test_accuracy") else None,
        "create_time": manifest.create_time.ToJsonString(),
    }


def _created(bundle: Bundle) -> tuple[int, int]:
    return bundle.manifest.create_time.seconds, bundle.manifest.create_time.nanos


def _accuracy(bundle: Bundle) -> str:
    return f"{bundle.manifest.test_accuracy:.2%}" if bundle.manifest.HasField("test_accuracy") else ""


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)}: {_shortened(names)}" if names else "none: the model has no classifier"


def _shortened(classes: Sequence[str], most: int = 10) -> str:
    return ", ".join(classes[:most]) + (", …" if len(classes) > most else "")


def _dims(shape: Sequence[int]) -> str:
    return "".join(f", {size}" for size in shape)
