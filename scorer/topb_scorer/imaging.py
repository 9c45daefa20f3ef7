"""Decode images and resize them to the uint8 RGB arrays that models take."""

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
# Pillow decodes these by running an external program, a PostScript interpreter.
_REFUSED_FORMATS = {"EPS"}


@dataclass(frozen=True)
class ImageLimits:
    """Size limits of images. Larger images are refused before they are decoded."""

    max_bytes: int = 64 * 2**20
    """The largest encoded image, in bytes."""
    max_pixels: int = 89_478_485
    """The largest decoded image, in pixels (height × width): 256 MiB as uint8 RGB, Pillow's own warning
    threshold. A small file can declare far more."""


DEFAULT_LIMITS = ImageLimits()


class SkippedImageError(Exception):
    """An image cannot be used. Its row is skipped; the rest of the pool is not affected."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def load(
    image: bytes | NDArray[np.uint8], target: ImageInput, limits: ImageLimits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """Return an image as the array that a model takes.

    Args:
        image: an encoded image, or uint8 (h, w, 3), RGB.
        target: the size of the array and how the image is resized to it.
        limits: size limits; larger images are refused.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        SkippedImageError: the reason is IMAGE_EMPTY, IMAGE_CORRUPT, IMAGE_FORMAT_UNKNOWN, IMAGE_TOO_LARGE or
            IMAGE_SHAPE.
    """
    if isinstance(image, np.ndarray):
        return fit(_checked_array(image, limits), target)
    return fit(decode(image, limits), target)


def decode(encoded: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG, WebP or any other format that Pillow opens to uint8 (h, w, 3), RGB and upright.

    libjpeg-turbo decodes JPEG; Pillow decodes what libjpeg-turbo refuses, such as CMYK. Transparent pixels
    become black, grey becomes RGB, and only the first frame of an animation is used.

    Raises:
        SkippedImageError: the reason is IMAGE_EMPTY, IMAGE_CORRUPT, IMAGE_FORMAT_UNKNOWN or IMAGE_TOO_LARGE.
    """
    if not encoded:
        raise SkippedImageError("IMAGE_EMPTY", "the image has no bytes")
    if len(encoded) > limits.max_bytes:
        raise SkippedImageError(
            "IMAGE_TOO_LARGE", f"the image has {len(encoded)} bytes; the limit is {limits.max_bytes}"
        )
    try:
        with Image.open(io.BytesIO(encoded), formats=_formats()) as opened:
            return _decode_opened(opened, encoded, limits)
    except SkippedImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SkippedImageError("IMAGE_TOO_LARGE", str(error)) from error
    except UnidentifiedImageError as error:
        raise SkippedImageError(
            "IMAGE_FORMAT_UNKNOWN", "the image does not have a format that Pillow recognises"
        ) from error
    # On damaged files Pillow's decoders raise many types of errors, such as SyntaxError and struct.error.
    except Exception as error:
        raise SkippedImageError("IMAGE_CORRUPT", f"{type(error).__name__}: {error}") from error


def fit(image: NDArray[np.uint8], target: ImageInput) -> NDArray[np.uint8]:
    """Resize uint8 (h, w, 3) to uint8 (height, width, 3) by the rule of `target`."""
    height, width = image.shape[:2]
    if (height, width) == (target.height, target.width):
        return image
    box = (0.0, 0.0, float(width), float(height))
    if target.resize is ResizeRule.COVER_AND_CENTER_CROP:
        # Pillow refuses a box that exceeds the image by a rounding error, so the side that is kept is exact.
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
    # Pillow loads its rarer formats when it first needs them. A thread that opens such a file while another
    # thread loads them may fail to identify it.
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name not in _REFUSED_FORMATS)


def _decode_opened(opened: Image.Image, encoded: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
    pixels = opened.width * opened.height
    if pixels > limits.max_pixels:
        raise SkippedImageError(
            "IMAGE_TOO_LARGE",
            f"the image has {opened.width}×{opened.height} pixels; the limit is {limits.max_pixels} pixels",
        )
    orientation = opened.getexif().get(_EXIF_ORIENTATION, 1)
    if encoded.startswith(_JPEG_MAGIC) and orientation == 1 and opened.mode in {"L", "RGB"}:
        try:
            decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
        except ValueError:
            # libjpeg-turbo refuses some valid images; Pillow finds out whether this one is damaged.
            pass
        else:
            return decoded
    return np.asarray(_as_rgb(ImageOps.exif_transpose(opened)))


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # 16-bit grey: convert() would clip at 255.
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
            "IMAGE_SHAPE", f"the array is {image.dtype} {image.shape}; expected uint8 (height, width, 3)"
        )
    if image.shape[0] * image.shape[1] > limits.max_pixels:
        raise SkippedImageError(
            "IMAGE_TOO_LARGE", f"the array is {image.shape}; the limit is {limits.max_pixels} pixels"
        )
    return image
