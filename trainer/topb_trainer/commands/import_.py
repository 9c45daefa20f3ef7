"""The `topb import` command, which makes a bundle of a model that somebody else trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topb.commands.options import JSON, PATH, Choice, Option
from topb.image_input import ImageInput, ResizeRule
from topb_trainer.commands.dataclass_options import SettingsCommand, require_writable
from topb_trainer.errors import ConfigurationError

if TYPE_CHECKING:
    from topb_scorer.bundle import Bundle
    from topb_trainer.importing.imported_bundle import CheckedImages
    from topb_trainer.importing.input_rule import InputOptions
    from topb_trainer.importing.onnx_model import ChosenValues, ImportedModel

_RESIZE_RULES = (ResizeRule.STRETCH, ResizeRule.COVER_AND_CENTER_CROP)


class _Size(click.ParamType[tuple[int, int]]):
    """A height and a width in pixels: `224`, or `224x192`."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        sides = str(value).replace("×", "x").split("x")
        if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            self.fail(f"{value!r} is no size; expected pixels, such as 224, or HEIGHTxWIDTH", param, ctx)
        return int(sides[0]), int(sides[-1])


@click.command(
    cls=SettingsCommand,
    params=[
        click.Argument(["model"], type=PATH, required=False),
        Option(
            "--torch PLACE",
            "In place of MODEL: package.module:factory, a function without arguments that returns a torch "
            "module. For normalised images, float32 (N, 3, height, width), it gives features (N, D), or a "
            "tuple or dict of features and logits.",
            name="factory",
        ),
        Option("--timm NAME", "In place of MODEL: a model of timm, with its own input rule."),
        Option(
            "--weights FILE",
            "Weights for --torch or --timm: a .safetensors or .pth file, of which only tensors are read. "
            "For --timm also pretrained or random.",
            type=str,
            show_default="for --timm pretrained; for --torch those of the module",
        ),
        Option(
            "--out DIR",
            "Directory of bundles. The new bundle is a subdirectory named after its model id.",
            required=True,
        ),
        Option(
            "--features NAME",
            "The value of the graph that is the features of an image: any value, such as the input of the "
            "last layer. Without it, the command lists those there are.",
        ),
        Option(
            "--logits NAME",
            "The value that is the logits, by class. Without it and without "
            "--probabilities, the bundle has no classifier.",
        ),
        Option(
            "--probabilities NAME", "The value that is the probabilities by class, if there are no logits."
        ),
        Option(
            "--classes FILE",
            "The names of the classes: a text file with one in each line, JSON, or the "
            "config.json of Hugging Face. By default, classes are called by their numbers.",
        ),
        Option(
            "--size SIZE",
            "Height and width of the images that the model takes, if its graph does not "
            "tell: 224, or 224x192.",
            type=_Size(),
        ),
        Option(
            "--resize RULE",
            "How images are resized.",
            type=Choice(_RESIZE_RULES),
            show_default="that of preprocessor_config.json, or else stretch",
        ),
        Option(
            "--before-crop SIZE",
            "Size to which images are resized before the centre is cropped to "
            "--size, such as 256 before a crop to 224.",
            type=_Size(),
        ),
        Option("--scale S", "Factor that multiplies pixel values from 0 to 255.", show_default="1/255"),
        Option(
            "--mean X...",
            "What is subtracted then: one number, or one for each channel.",
            type=float,
            multiple=True,
        ),
        Option(
            "--std X...",
            "By what the difference is divided: one number, or one for each channel.",
            type=float,
            multiple=True,
        ),
        Option(
            "--layout ORDER",
            "Order of the dimensions of the model's input, if its graph does not tell.",
            type=Choice(("nchw", "nhwc")),
        ),
        Option("--bgr", "The model takes channels in the order blue, green, red."),
        Option(
            "--labelled FILE",
            "Images that are labelled already: a pool of any kind, or a Parquet file "
            "of ids that are in --images. Selections leave them out, and core_set keeps away from them.",
        ),
        Option(
            "--images PATH",
            "A pool of your images. On the first 64 of them, the bundle must compute the "
            "same as the model. Without it, synthetic images are used.",
        ),
        JSON,
    ],
)
def run(
    model: Path | None,
    factory: str | None,
    timm: str | None,
    weights: str | None,
    out: Path,
    features: str | None,
    logits: str | None,
    probabilities: str | None,
    classes: Path | None,
    labelled: Path | None,
    images: Path | None,
    as_json: bool,
    **about_input: Any,
) -> None:
    """Make a bundle of a model that you have, without training.

    MODEL is an ONNX file. A preprocessor_config.json beside it says how images are prepared; options override
    it. The strategies entropy, margin, badge, core_set, typiclust and others then work at once.
    """
    # Imported here because ONNX and ONNX Runtime take a second to import.
    from topb_trainer.importing.class_names import read_class_names
    from topb_trainer.importing.imported_bundle import publish_imported
    from topb_trainer.importing.labelled import read_labelled_images
    from topb_trainer.importing.onnx_model import ChosenValues

    require_writable(out)
    chosen = ChosenValues(features, logits, probabilities)
    options, remarks = _input_options(None if model is None else model.parent, about_input)
    imported = _imported(model, factory, timm, weights, chosen, options)
    if classes is not None and not imported.class_count:
        raise ConfigurationError(
            "--classes names the classes of a classifier, but neither --logits nor --probabilities is given; "
            "give one of them, or leave --classes out",
            reason="IMPORT_CLASSES",
        )
    names = (
        [str(index) for index in range(imported.class_count)]
        if classes is None
        else read_class_names(classes, imported.class_count)
    )
    target = imported.rule.target
    known = None if labelled is None else read_labelled_images(labelled, images, target, progress=not as_json)
    checked = _checked_images(images, target)
    for remark in remarks:
        print(remark, file=sys.stderr)
    bundle = publish_imported(imported, names, known, checked, out)
    print(json.dumps(_as_dict(bundle, checked)) if as_json else _as_text(bundle, checked))


def _imported(
    model: Path | None,
    factory: str | None,
    timm: str | None,
    weights: str | None,
    chosen: ChosenValues,
    options: InputOptions,
) -> ImportedModel:
    from topb_trainer.importing.onnx_file import read_onnx
    from topb_trainer.importing.onnx_model import ChosenValues, import_onnx

    if [model, factory, timm].count(None) != 2:
        raise click.UsageError("Give one of MODEL, --torch and --timm.")
    if model is not None:
        if weights is not None:
            raise click.UsageError("--weights belongs to --torch or --timm; an ONNX file has its own.")
        return import_onnx(read_onnx(model), chosen, options)
    if chosen != ChosenValues(None):
        raise click.UsageError(
            "--features, --logits and --probabilities name values of an ONNX graph; a torch module gives "
            "features and logits itself."
        )
    # Imported here because torch takes seconds to import.
    from topb_trainer.importing.torch_model import import_torch, timm_model, torch_module

    if timm is not None:
        return import_torch(timm_model(timm, weights or "pretrained", options))
    return import_torch(torch_module(str(factory), None if weights is None else Path(weights), options))


def _input_options(directory: Path | None, given: dict[str, Any]) -> tuple[InputOptions, list[str]]:
    """Return the options over what a preprocessor_config.json in the directory says, and remarks about it."""
    from topb_trainer.importing.input_rule import PREPROCESSOR_CONFIG, InputOptions, read_preprocessor_config

    resize = given.pop("resize")
    options = InputOptions(
        **{name: value or None for name, value in given.items()},
        resize=None if resize is None else ResizeRule(resize),
    )
    path = None if directory is None else directory / PREPROCESSOR_CONFIG
    if path is None or not path.is_file():
        return options, []
    beside, remarks = read_preprocessor_config(path)
    return options.over(beside), [f"input: read from {path}", *remarks]


def _checked_images(pool: Path | None, target: ImageInput) -> CheckedImages:
    from topb_trainer.data.decoding import first_images
    from topb_trainer.importing.imported_bundle import CHECKED_IMAGES, CheckedImages, synthetic_images

    if pool is None:
        return synthetic_images(target.height, target.width)
    return CheckedImages(first_images(pool, CHECKED_IMAGES, target), f"images of {pool.name}")


def _as_dict(bundle: Bundle, checked: CheckedImages) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "model_id": bundle.model_id,
        "encoder_id": bundle.encoder_id,
        "path": str(bundle.path),
        "input": {"height": bundle.input.height, "width": bundle.input.width, "resize": bundle.input.resize},
        "features": bundle.output_shape("features")[0],
        "classes": bundle.class_count,
        "labelled": manifest.labelled_count,
        "checked_images": checked.described,
        "graph_bytes": bundle.graph_bytes,
        "gates": [
            {"name": gate.name, "measured": gate.measured, "limit": gate.limit} for gate in manifest.gates
        ],
    }


def _as_text(bundle: Bundle, checked: CheckedImages) -> str:
    manifest, target = bundle.manifest, bundle.input
    classes = f"{bundle.class_count} classes" if bundle.class_count else "no classifier"
    lines = [
        f"model      {manifest.model_id} · {manifest.method} · encoder {manifest.encoder_id}",
        f"bundle     {bundle.path} · graphs of {bundle.graph_bytes / 1e6:.1f} MB",
        f"images     {target.height} × {target.width} · {target.resize.value.replace('_', ' ')} · "
        f"{manifest.labelled_count} labelled",
        f"outputs    features of {bundle.output_shape('features')[0]} numbers · {classes}",
        f"checked    on {checked.described}",
        "gates      measured    limit",
    ]
    lines += [
        f"           {gate.measured:<8.2g} ≤  {gate.limit:<8.2g} {gate.name}" for gate in manifest.gates
    ]
    return "\n".join(lines)
