"""How images become the numbers that an imported model takes, as options and preprocessor_config.json say."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from topb.image_input import ImageInput, ResizeRule
from topb_trainer.errors import ModelImportError

PREPROCESSOR_CONFIG = "preprocessor_config.json"
Layout = Literal["nchw", "nhwc"]
Size = tuple[int, int]
"""Height and width in pixels."""

_BILINEAR = 2
_RESAMPLINGS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""The names of Pillow's resampling filters, by their numbers."""


@dataclass(frozen=True)
class InputOptions:
    """What is known about the input of a model. A field is None if nobody has said it."""

    size: Size | None = None
    """The size of the images that the model takes."""
    resize: ResizeRule | None = None
    """How images are resized; by default they are stretched."""
    before_crop: Size | None = None
    """The size to which images are resized before the centre is cropped to `size`."""
    layout: Layout | None = None
    scale: float | None = None
    """The factor that multiplies pixel values from 0 to 255 before `mean` and `std`; by default 1/255."""
    mean: tuple[float, ...] | None = None
    """One number, or one for each channel in the model's order, that is subtracted."""
    std: tuple[float, ...] | None = None
    """One number, or one for each channel, by which the difference is divided."""
    bgr: bool | None = None
    """Whether the model takes blue before green and red."""

    def over(self, other: InputOptions) -> InputOptions:
        """Return these options, with those of `other` where these are None.

        A size before the crop belongs to its size, so a `size` of these options replaces both.
        """
        if self.size is not None:
            other = replace(other, before_crop=None)
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(other, **{name: value for name, value in mine.items() if value is not None})


@dataclass(frozen=True)
class PixelRule:
    """How uint8 pixels become numbers: (pixel × scale − mean) / std, in float32.

    The channels are in the order in which the model takes them.
    """

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the numbers, float32 (N, H, W, 3), of images (N, H, W, 3)."""
        scaled = images.astype(np.float32) * np.float32(self.scale)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)  # (3), (3)
        numbers: NDArray[np.float32] = (scaled - mean) / std
        return numbers


@dataclass(frozen=True)
class InputRule:
    """How an image becomes one row of a model's input."""

    size: Size
    before_crop: Size
    """The size to which images are resized; larger than `size` if the centre is cropped then."""
    resize: ResizeRule
    layout: Layout
    pixels: PixelRule | None
    """None if the model takes pixels from 0 to 255 as uint8."""
    bgr: bool

    @property
    def target(self) -> ImageInput:
        """The array that the encoder of the bundle takes for one image."""
        return ImageInput(*self.before_crop, self.resize)

    @property
    def crop(self) -> tuple[slice, slice]:
        """The rows and the columns of the centre that the model takes."""
        starts = [(whole - part) // 2 for whole, part in zip(self.before_crop, self.size, strict=True)]
        rows, columns = (slice(start, start + part) for start, part in zip(starts, self.size, strict=True))
        return rows, columns

    def apply(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the model's input, uint8 or float32, for images (N, H, W, 3) of the size `before_crop`."""
        rows, columns = self.crop
        taken = images[:, rows, columns, ::-1] if self.bgr else images[:, rows, columns]
        numbers = taken if self.pixels is None else self.pixels.apply(taken)
        return np.ascontiguousarray(numbers.transpose(0, 3, 1, 2) if self.layout == "nchw" else numbers)


def input_rule(options: InputOptions, size: Size, layout: Layout, *, takes_pixels: bool) -> InputRule:
    """Return the rule of a model.

    Args:
        options: what is known beside the graph.
        size, layout: those of the graph's input.
        takes_pixels: whether the graph takes uint8, so that it normalises pixels by itself.

    Raises:
        ModelImportError: the normalisation is unknown or has the wrong length, or the crop is larger than the
            image.
    """
    before_crop = options.before_crop or size
    if any(whole < part for whole, part in zip(before_crop, size, strict=True)):
        raise ModelImportError(
            f"images are resized to {before_crop[0]}×{before_crop[1]} and then cropped to the model's "
            f"{size[0]}×{size[1]}; expected at least that size before the crop",
            reason="IMPORT_SIZE",
        )
    cropped = before_crop != size
    resize = options.resize or (ResizeRule.COVER_AND_CENTER_CROP if cropped else ResizeRule.STRETCH)
    pixels = _pixel_rule(options, takes_pixels=takes_pixels)
    return InputRule(size, before_crop, resize, layout, pixels, bool(options.bgr))


def _pixel_rule(options: InputOptions, *, takes_pixels: bool) -> PixelRule | None:
    given = [name for name in ("scale", "mean", "std") if getattr(options, name) is not None]
    if takes_pixels:
        if given:
            raise ModelImportError(
                f"the model takes uint8 pixels, but {' and '.join(given)} would make them fractions; leave "
                f"{'them' if len(given) > 1 else 'it'} out",
                reason="IMPORT_NORMALISATION",
            )
        return None
    if not given:
        raise ModelImportError(
            "the model takes floating-point numbers, and nothing says how pixels become numbers; give "
            "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 (most models trained on ImageNet), "
            "--mean 0.5 --std 0.5 (numbers from -1 to 1), --scale 0.00392156862745098 (from 0 to 1), "
            f"--scale 1 (from 0 to 255), or put the model's {PREPROCESSOR_CONFIG} beside it",
            reason="IMPORT_NORMALISATION",
        )
    mean = _by_channel("mean", options.mean or (0.0,))
    std = _by_channel("std", options.std or (1.0,))
    scale = 1 / 255 if options.scale is None else options.scale
    if not (all(number > 0 for number in std) and scale > 0 and np.isfinite([*mean, *std, scale]).all()):
        raise ModelImportError(
            f"scale is {scale}, mean is {mean} and std is {std}; expected finite numbers, and scale and std "
            "above 0",
            reason="IMPORT_NORMALISATION",
        )
    return PixelRule(scale, mean, std)


def _by_channel(name: str, numbers: tuple[float, ...]) -> tuple[float, float, float]:
    if len(numbers) not in (1, 3):
        raise ModelImportError(
            f"{name} has {len(numbers)} numbers; expected 3, for red, green and blue, or 1 for all of them",
            reason="IMPORT_NORMALISATION",
        )
    red, green, blue = numbers if len(numbers) == 3 else numbers * 3
    return red, green, blue


def read_preprocessor_config(path: Path) -> tuple[InputOptions, list[str]]:
    """Return what a preprocessor_config.json of Hugging Face says, and remarks on what differs here.

    Raises:
        ModelImportError: the file cannot be read, or it describes steps that topb does not have.
    """
    try:
        config = json.loads(path.read_bytes())
        return _from_config(config, path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unusable(path, f"cannot be read: {type(error).__name__}: {error}") from error


def _from_config(config: dict[str, Any], path: Path) -> tuple[InputOptions, list[str]]:
    for step in ("do_pad", "do_thumbnail", "do_align_long_axis"):
        if config.get(step):
            raise _unusable(path, f"asks for {step}, which topb does not do")
    size, resize, before_crop = _sizes(config, path)
    remarks = []
    resampling = config.get("resample", _BILINEAR)
    if config.get("do_resize", True) and resampling != _BILINEAR:
        name = _RESAMPLINGS[resampling] if resampling in range(len(_RESAMPLINGS)) else resampling
        remarks.append(
            f"{path.name}: the model was made for {name} resizing; topb resizes bilinearly with "
            "antialiasing, so features differ slightly"
        )
    normalises = config.get("do_normalize", True) and "image_mean" in config
    return (
        InputOptions(
            size=size,
            resize=resize,
            before_crop=before_crop,
            scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
            mean=_numbers(config["image_mean"]) if normalises else None,
            std=_numbers(config["image_std"]) if normalises else None,
            bgr=bool(config.get("do_flip_channel_order", False)),
        ),
        remarks,
    )


def _sizes(config: dict[str, Any], path: Path) -> tuple[Size | None, ResizeRule | None, Size | None]:
    """Return the size that the model takes, the resize rule, and the size before the crop."""
    crop = _size(config["crop_size"], path) if config.get("do_center_crop") else None
    if not config.get("do_resize", True) or "size" not in config:
        return crop, None, None
    said = config["size"]
    if isinstance(said, dict) and "height" in said:
        whole = _size(said, path)
        return crop or whole, ResizeRule.STRETCH, whole
    if isinstance(said, dict) and set(said) != {"shortest_edge"}:
        raise _unusable(path, f"resizes to {said}; expected height and width, or shortest_edge")
    edge = said["shortest_edge"] if isinstance(said, dict) else said
    if not isinstance(edge, int):
        whole = _size(edge, path)
        return crop or whole, ResizeRule.STRETCH, whole
    if isinstance(config.get("crop_pct"), float):
        # ConvNeXt's preprocessor: up to 384 pixels it crops, above it stretches.
        if edge >= 384:
            return (edge, edge), ResizeRule.STRETCH, None
        return (edge, edge), ResizeRule.COVER_AND_CENTER_CROP, (int(edge / config["crop_pct"]),) * 2
    if crop is None and not isinstance(said, dict):
        return (edge, edge), ResizeRule.STRETCH, None
    return crop or (edge, edge), ResizeRule.COVER_AND_CENTER_CROP, (edge, edge)


def _size(said: Any, path: Path) -> Size:
    if isinstance(said, int):
        return said, said
    height, width = (said["height"], said["width"]) if isinstance(said, dict) else said
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise _unusable(path, f"has the size {said}; expected a height and a width in pixels")
    return height, width


def _numbers(said: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in (said if isinstance(said, list) else [said]))


def _unusable(path: Path, fault: str) -> ModelImportError:
    return ModelImportError(
        f"{path} {fault}; correct it, or remove it and give --size, --resize, --mean and --std",
        reason="IMPORT_PREPROCESSOR",
        file=path,
    )
