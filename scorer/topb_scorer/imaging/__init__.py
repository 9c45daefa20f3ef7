"""Decode images and resize them to the uint8 RGB arrays that models take."""

from topb_scorer.imaging.limits import DEFAULT_LIMITS, ImageLimits, SkippedImageError
from topb_scorer.imaging.loading import decode, fit, load
from topb_scorer.imaging.pixel_budget import PixelBudget

__all__ = ["DEFAULT_LIMITS", "ImageLimits", "PixelBudget", "SkippedImageError", "decode", "fit", "load"]
