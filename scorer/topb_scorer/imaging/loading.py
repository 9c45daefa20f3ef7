"""Decode images and resize them, with few copies, because a large image takes hundreds of megabytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from topb.image_input import ImageInput, ResizeRule
from topb_scorer.cancellation import Check, never_cancelled
from topb_scorer.errors import SelectionCancelledError
from topb_scorer.imaging.limits import DEFAULT_LIMITS, ImageLimits, SkippedImageError
from topb_scorer.imaging.modes import as_rgb, stored_mode
from topb_scorer.imaging.pixel_budget import PixelBudget

_JPEG_MAGIC = b"\xff\xd8\xff"
_BLOCK_BYTES = 2**30
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_Decoded = Image.Image | NDArray[np.uint8]
"""A decoded image: of mode RGB, or uint8 (h, w, 4) whose last channel has no meaning."""
# Pillow decodes these by running an external program, a PostScript interpreter.
_REFUSED_FORMATS = {"EPS"}


def load(
    image: bytes | NDArray[np.uint8],
    target: ImageInput,
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    budget: PixelBudget | None = None,
    check: Check = never_cancelled,
) -> NDArray[np.uint8]:
    """Return an image as the array that a model takes.

    Args:
        image: an encoded image, or uint8 (h, w, 3), RGB.
        target: the size of the array and how the image is resized to it.
        limits: size limits; larger images are refused.
        budget: limits the pixels that are decoded at once; None for no limit. An array takes none of it.
        check: called while the image waits for the budget and while Pillow decodes it.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        SkippedImageError: the reason is IMAGE_SHAPE or one of those of `decode`.
        SelectionCancelledError: `check` raised it.
    """
    if isinstance(image, np.ndarray):
        return fit(_checked_array(image, limits), target)
    with _decoded(image, limits, budget, check) as decoded:
        return _fitted(decoded, target)


def decode(encoded: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG, WebP or any other format that Pillow opens to uint8 (h, w, 3), RGB and upright.

    libjpeg-turbo decodes JPEG; Pillow decodes what libjpeg-turbo refuses, such as CMYK. docs/pools.md states
    how each mode becomes RGB. Only the first frame of an animation is used.

    Raises:
        SkippedImageError: the reason is IMAGE_EMPTY, IMAGE_CORRUPT, IMAGE_FORMAT_UNKNOWN, IMAGE_TOO_LARGE,
            IMAGE_RANGE_UNKNOWN or IMAGE_MODE_UNKNOWN.
    """
    with _decoded(encoded, limits, None, never_cancelled) as decoded:
        return np.ascontiguousarray(np.asarray(decoded)[..., :3])


def fit(image: NDArray[np.uint8], target: ImageInput) -> NDArray[np.uint8]:
    """Resize uint8 (h, w, 3) to uint8 (height, width, 3) by the rule of `target`."""
    if image.shape[:2] == (target.height, target.width):
        return image
    return _resized(Image.fromarray(image), target)


def _fitted(decoded: _Decoded, target: ImageInput) -> NDArray[np.uint8]:
    if isinstance(decoded, Image.Image):
        return _resized(decoded, target)
    height, width = decoded.shape[:2]
    if (height, width) == (target.height, target.width):
        return decoded[..., :3]
    # Pillow keeps four bytes a pixel, so it can use these without a copy.
    return _resized(Image.frombuffer("RGBX", (width, height), decoded, "raw", "RGBX", 0, 1), target)


def _resized(image: Image.Image, target: ImageInput) -> NDArray[np.uint8]:
    """Resize an image of mode RGB or RGBX to uint8 (height, width, 3) by the rule of `target`."""
    width, height = image.size
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
    resized = image.resize((target.width, target.height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)[..., :3]


@cache
def _formats() -> tuple[str, ...]:
    # Pillow loads its rarer formats when it first needs them. A thread that opens such a file while another
    # thread loads them may fail to identify it.
    Image.preinit()
    Image.init()
    # glibc gives blocks of more than 32 MiB back as soon as they are freed. Pillow would split an image into
    # blocks of 16 MiB, of which glibc keeps many for each thread: 3.5 GiB after eight large images.
    _imaging.set_block_size(_BLOCK_BYTES)
    return tuple(name for name in Image.ID if name not in _REFUSED_FORMATS)


@contextmanager
def _decoded(
    encoded: bytes, limits: ImageLimits, budget: PixelBudget | None, check: Check
) -> Iterator[_Decoded]:
    """Decode an image and turn it upright, and hold its pixels while the context is open."""
    if not encoded:
        raise SkippedImageError("IMAGE_EMPTY", "the image has no bytes")
    if len(encoded) > limits.max_bytes:
        raise SkippedImageError(
            "IMAGE_TOO_LARGE", f"the image has {len(encoded)} bytes; the limit is {limits.max_bytes}"
        )
    is_jpeg = encoded.startswith(_JPEG_MAGIC)
    source = io.BytesIO(encoded) if is_jpeg else _CheckedBytes(encoded, check)
    with _faults_as_skips():
        opened = Image.open(source, formats=_formats())
    pixels = opened.width * opened.height
    if pixels > limits.max_pixels:
        raise SkippedImageError(
            "IMAGE_TOO_LARGE",
            f"the image has {opened.width}×{opened.height} pixels; the limit is {limits.max_pixels} pixels",
        )
    with _held(budget, pixels, check), opened:
        with _faults_as_skips():
            pixels_of_jpeg = _decoded_by_turbojpeg(opened, encoded) if is_jpeg else None
            decoded = _upright(opened, check) if pixels_of_jpeg is None else pixels_of_jpeg
        yield decoded


def _decoded_by_turbojpeg(opened: Image.Image, encoded: bytes) -> NDArray[np.uint8] | None:
    """Decode a JPEG that needs neither turning nor another colour space to (h, w, 4), or return None."""
    if opened.getexif().get(_EXIF_ORIENTATION, 1) != 1 or opened.mode not in {"L", "RGB"}:
        return None
    try:
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, colorspace="RGBX")
    except ValueError:
        # libjpeg-turbo refuses some valid images; Pillow finds out whether this one is damaged.
        return None
    return decoded


def _upright(opened: ImageFile.ImageFile, check: Check) -> Image.Image:
    stored = stored_mode(opened)
    opened.load()
    rgb = as_rgb(opened, stored, check)
    turn = _TURNS.get(opened.getexif().get(_EXIF_ORIENTATION, 1))
    return rgb if turn is None else rgb.transpose(turn)


class _CheckedBytes(io.BytesIO):
    """Calls a check at each read, so that Pillow stops between the parts of a file that it decodes."""

    def __init__(self, encoded: bytes, check: Check) -> None:
        super().__init__(encoded)
        self._check = check

    def read(self, size: int | None = -1, /) -> bytes:
        self._check()
        return super().read(size)


def _held(budget: PixelBudget | None, pixels: int, check: Check) -> AbstractContextManager[None]:
    return budget.hold(pixels, check) if budget else nullcontext()


@contextmanager
def _faults_as_skips() -> Iterator[None]:
    """Raise SkippedImageError instead of the errors with which Pillow reports images that it cannot use."""
    try:
        yield
    except (SkippedImageError, SelectionCancelledError):
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
