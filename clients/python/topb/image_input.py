"""The array that a model takes for one image, and the rules that convert an image to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from topb.v1 import bundle_pb2


class ResizeRule(StrEnum):
    """How an image is resized to height × width. Both rules are bilinear with antialiasing."""

    UNSPECIFIED = "unspecified"
    """The model's manifest names no rule, or one that this version does not know."""
    STRETCH = "stretch"
    """Resize to height × width, whatever the aspect ratio."""
    COVER_AND_CENTER_CROP = "cover_and_center_crop"
    """Resize, keeping the aspect ratio, until the image covers height × width; then crop the centre."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The array that a model takes for one image: uint8 (height, width, 3), RGB."""

    height: int
    """In pixels."""
    width: int
    """In pixels."""
    resize: ResizeRule = ResizeRule.STRETCH
    """How an image is resized to height × width."""

    @classmethod
    def from_message(cls, message: bundle_pb2.ImageInput) -> ImageInput:
        """Convert from the manifest's message; an unknown rule becomes `UNSPECIFIED`."""
        known = message.resize in bundle_pb2.ResizeRule.values()
        name = bundle_pb2.ResizeRule.Name(message.resize) if known else "RESIZE_RULE_UNSPECIFIED"
        return cls(message.height, message.width, ResizeRule[name.removeprefix("RESIZE_RULE_")])

    def to_message(self) -> bundle_pb2.ImageInput:
        """Convert to the manifest's message."""
        rule = bundle_pb2.ResizeRule.Value(f"RESIZE_RULE_{self.resize.name}")
        return bundle_pb2.ImageInput(height=self.height, width=self.width, resize=rule)
