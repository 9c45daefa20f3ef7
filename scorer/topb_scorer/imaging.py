"""From the bytes of an image file, or an array, to the uint8 RGB array that a bundle takes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from topb.image_input import ImageInput, ResizeRule

_JPEG_MAGIC = b"\xff\xd8\xff"
_EXIF_ORIENTATION = 0x0112
# Decoding these runs a program of their own, a PostScript interpreter.
_REFUSED_FORMATS = {"EPS"}


@dataclass(frozen=True)
class ImageLimits:
    """What is refused before it is decoded."""

    max_bytes: int = 64 * 2**20
    """Of one encoded image."""
    max_pixels: int = 89_478_485
    """Of one decoded image: 256 MiB as uint8 RGB, where Pillow too begins to warn. A small file can claim far
    more."""


DEFAULT_LIMITS = ImageLimits()


class SkippedImageError(Exception):
    """This image cannot be scored; the rest of the pool can."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def load(
    image: bytes | NDArray[np.uint8], target: ImageInput, limits: ImageLimits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """Returns uint8 (height, width, 3) as `target` says, from an encoded image or an (h, w, 3) array.

    Raises:
        SkippedImageError: with reason IMAGE_EMPTY, IMAGE_CORRUPT, IMAGE_FORMAT_UNKNOWN, IMAGE_TOO_LARGE or
            IMAGE_SHAPE.
    """
    if isinstance(image, np.ndarray):
        return fit(_checked_array(image, limits), target)
    return fit(decode(image, limits), target)


def decode(encoded: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Returns uint8 (h, w, 3), RGB and upright, of a JPEG, PNG, WebP or whatever else Pillow opens.

    JPEG goes through libjpeg-turbo directly; what that refuses (CMYK, for one) and all else through Pillow.
    Transparency is laid over black; grey becomes RGB; of an animation the first frame counts.

    Raises:
        SkippedImageError: as `load`.
    """
    if not encoded:
        raise SkippedImageError("IMAGE_EMPTY", "the image has no bytes")
    if len(encoded) > limits.max_bytes:
        raise SkippedImageError(
            "IMAGE_TOO_LARGE", f"{len(encoded)} bytes; at most {limits.max_bytes} are read"
        )
    try:
        with Image.open(io.BytesIO(encoded), formats=_formats()) as opened:
            return _decode_opened(opened, encoded, limits)
    except SkippedImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SkippedImageError("IMAGE_TOO_LARGE", str(error)) from error
    except UnidentifiedImageError as error:
        raise SkippedImageError("IMAGE_FORMAT_UNKNOWN", "not an image that Pillow can identify") from error
    # Pillow's decoders raise a wide set of types on damaged files, SyntaxError and struct.error among them.
    except Exception as error:
        raise SkippedImageError("IMAGE_CORRUPT", f"{type(error).__name__}: {error}") from error


def fit(image: NDArray[np.uint8], target: ImageInput) -> NDArray[np.uint8]:
    """Returns `image` (h, w, 3) as uint8 (height, width, 3), resized as `target` says."""
    height, width = image.shape[:2]
    if (height, width) == (target.height, target.width):
        return image
    box = (0.0, 0.0, float(width), float(height))
    if target.resize is ResizeRule.COVER_AND_CENTER_CROP:
        # The side that is kept whole stays exact: a box beyond the image by rounding is refused.
        crop_width, crop_height = float(width), float(height)
        if width * target.height < height * target.width:
            crop_height = width * target.height / target.width
        else:
            crop_width = height * target.width / target.height
        left, top = (width - crop_width) / 2, (height - crop_height) / 2
        box = (left, top, left + crop_width, top + crop_height)
    resized = Image.fromarray(image).resize((target.width, target.height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)


@cache
def _formats() -> tuple[str, ...]:
    # Left to itself, Pillow loads its less usual formats when the first such file comes, and a thread that
    # opens one meanwhile may be told that it is no image.
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name not in _REFUSED_FORMATS)


def _decode_opened(opened: Image.Image, encoded: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
    pixels = opened.width * opened.height
    if pixels > limits.max_pixels:
        raise SkippedImageError(
            "IMAGE_TOO_LARGE",
            f"{opened.width}×{opened.height} = {pixels} pixels; at most {limits.max_pixels} are decoded",
        )
    orientation = opened.getexif().get(_EXIF_ORIENTATION, 1)
    if encoded.startswith(_JPEG_MAGIC) and orientation == 1 and opened.mode in {"L", "RGB"}:
        try:
            decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
        except ValueError:
            # Pillow decides whether it is truly broken.
            pass
        else:
            return decoded
    return np.asarray(_as_rgb(ImageOps.exif_transpose(opened)))


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # 16-bit grey, which convert() would clip at 255.
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")


def _checked_array(image: NDArray[np.uint8], limits: ImageLimits) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise SkippedImageError(
            "IMAGE_SHAPE", f"{image.dtype} {image.shape}; expected uint8 (height, width, 3)"
        )
    if image.shape[0] * image.shape[1] > limits.max_pixels:
        raise SkippedImageError(
            "IMAGE_TOO_LARGE", f"{image.shape}; at most {limits.max_pixels} pixels are taken"
        )
    return image
