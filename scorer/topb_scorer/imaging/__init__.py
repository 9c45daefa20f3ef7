"""Decode images and resize them to the uint8 RGB arrays that models take."""

from topb_scorer.imaging.limits import DEFAULT_LIMITS as DEFAULT_LIMITS
from topb_scorer.imaging.limits import ImageLimits as ImageLimits
from topb_scorer.imaging.limits import SkippedImageError as SkippedImageError
from topb_scorer.imaging.loading import decode as decode
from topb_scorer.imaging.loading import fit as fit
from topb_scorer.imaging.loading import load as load
from topb_scorer.imaging.pixel_budget import PixelBudget as PixelBudget
