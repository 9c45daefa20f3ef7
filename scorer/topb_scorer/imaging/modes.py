"""Convert images of all modes to RGB, in strips, so that no second copy of the whole image is made."""

from __future__ import annotations

import numpy as np
from PIL import Image

from topb_scorer.cancellation import Check

_PIXELS_AT_ONCE = 2**18


def as_rgb(image: Image.Image, check: Check) -> Image.Image:
    """Return an image in mode RGB; the same object if it is RGB and opaque.

    Transparent pixels become black, and grey becomes RGB.

    Args:
        image: a loaded image.
        check: called before each strip.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    canvas = Image.new("RGB", image.size)
    rows = max(1, _PIXELS_AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        check()
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        canvas.paste(_strip_as_rgb(strip), (0, top))
    return canvas


def _strip_as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # 16-bit grey: convert() would clip at 255.
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")
