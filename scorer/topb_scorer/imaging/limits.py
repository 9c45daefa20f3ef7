"""Define how large images may be, and the error for images that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass


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
