"""Convert images of all modes to RGB, in strips, so that no second copy of the whole image is made.

Models take 8 bits a channel. docs/pools.md states how each mode is reduced to them. Where a file does not say
which values are black and white, the image is skipped, because a guess could make it black.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from topb_scorer.cancellation import Check
from topb_scorer.imaging.limits import SkippedImageError

_PIXELS_AT_ONCE = 2**18
_CONVERTED = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
"""Modes of 8 bits a channel and without transparency of their own, which Pillow converts."""
_WITH_ALPHA = {"LA", "PA", "RGBA"}
_SIXTEEN_BITS = {"I;16", "I;16B", "I;16L", "I;16N"}
# Without those that begin with BGR: there, 16 are the bits of a whole pixel.
_STORED_IN_SIXTEEN_BITS = re.compile("(I|L|LA|RGB|RGBA|RGBa|RGBX|CMYK);16")
_PHOTOMETRIC_INTERPRETATION = 262
_LEAST_MAXIMUM = 2**12


def stored_mode(image: ImageFile.ImageFile) -> str:
    """Return how the file stores pixels, in Pillow's words, such as "RGB;16B"; empty if Pillow does not say.

    Pillow forgets it when it loads the image.
    """
    arguments = image.tile[0].args if image.tile else ""
    stored = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return stored if isinstance(stored, str) else ""


def as_rgb(image: ImageFile.ImageFile, stored: str, check: Check) -> Image.Image:
    """Return an image in mode RGB; the same object if it is RGB and opaque.

    Args:
        image: a loaded image.
        stored: its `stored_mode`.
        check: called before each strip.

    Raises:
        SkippedImageError: the reason is IMAGE_RANGE_UNKNOWN or IMAGE_MODE_UNKNOWN.
    """
    _check_range(image, stored, check)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    canvas = Image.new("RGB", image.size)
    for top, strip in _strips(image, check):
        rgb = _strip_as_rgb(strip, stored)
        canvas.paste(ImageOps.invert(rgb) if _is_stored_inverted(image) else rgb, (0, top))
    return canvas


def _strips(image: Image.Image, check: Check) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _PIXELS_AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        check()
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _check_range(image: ImageFile.ImageFile, stored: str, check: Check) -> None:
    if image.mode == "I" and image.format != "PPM":
        raise _range_unknown(f"its values are 32-bit or signed integers ({stored or image.mode})")
    if not _STORED_IN_SIXTEEN_BITS.match(stored):
        return
    if image.mode == "RGB" and "transparency" in image.info:
        raise _range_unknown("one colour of 16 bits a channel is transparent, but only 8 bits are read")
    largest = max(_largest(strip) for _, strip in _strips(image, check))
    if largest < _LEAST_MAXIMUM:
        raise _range_unknown(
            f"it has 16 bits a channel, but its values are below {_LEAST_MAXIMUM}, like those of 12-bit data"
        )


def _largest(strip: Image.Image) -> int:
    """Return the largest value of a colour, of 16 bits. Of some modes, Pillow keeps only the upper eight."""
    if strip.mode in _SIXTEEN_BITS or strip.mode == "I":
        return int(np.asarray(strip).max())
    colours = [band for band in strip.getbands() if band != "A"]
    return max(int(np.asarray(strip.getchannel(band)).max()) for band in colours) << 8


def _strip_as_rgb(strip: Image.Image, stored: str) -> Image.Image:
    if strip.mode in _SIXTEEN_BITS or strip.mode == "I":
        values = np.asarray(strip)
        grey = (values >> (4 if stored == "I;12" else 8)).astype(np.uint8)
        grey[values == strip.info.get("transparency", -1)] = 0
        return Image.fromarray(grey).convert("RGB")
    if strip.mode == "F":
        return Image.fromarray(_of_unit_range(np.asarray(strip))).convert("RGB")
    if strip.mode == "La":
        # Grey that is multiplied by its opacity is what lies over black.
        return strip.getchannel(0).convert("RGB")
    if strip.mode in _WITH_ALPHA or (strip.mode in _CONVERTED and "transparency" in strip.info):
        rgba = strip.convert("RGBA")
        canvas = Image.new("RGB", rgba.size)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    if strip.mode in _CONVERTED:
        return strip.convert("RGB")
    raise SkippedImageError(
        "IMAGE_MODE_UNKNOWN", f"there is no rule for images of mode {strip.mode}; save it as 8-bit RGB"
    )


def _of_unit_range(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    least, largest = values.min(), values.max()
    if not (least >= 0 and largest <= 1):
        raise _range_unknown(f"its floating-point values go from {least:g} to {largest:g} instead of 0 to 1")
    pixels: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return pixels


def _is_stored_inverted(image: ImageFile.ImageFile) -> bool:
    """Return whether 0 is white. Pillow inverts such images itself if they have at most 8 bits a channel."""
    tags = getattr(image, "tag_v2", {})
    return image.mode in {*_SIXTEEN_BITS, "F"} and tags.get(_PHOTOMETRIC_INTERPRETATION) == 0


def _range_unknown(why: str) -> SkippedImageError:
    return SkippedImageError(
        "IMAGE_RANGE_UNKNOWN",
        f"which values of the image are black and white is unknown: {why}; save it with 8 bits a channel",
    )
