"""Draw the picked images beside images that were not picked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from topb_scorer.imaging import decode

_COLUMNS = 6
_THUMBNAIL = 72
_CAPTION = 30
_GAP = 10
_MARGIN = 24
_TITLE = 44
_PAPER, _INK, _FAINT, _WRONG = "white", "black", "#666666", "#b00020"


@dataclass(frozen=True)
class Exhibit:
    """An image with its score, its predicted class and its true class."""

    image: bytes
    score: float
    predicted: str
    label: str
    """The true class, from the oracle."""


def write_contact_sheet(
    path: Path, *, picked: Sequence[Exhibit], not_picked: Sequence[Exhibit], title: str
) -> None:
    """Write a PNG with the picked images on the left and other images of the pool on the right.

    Each image is captioned with its score and the class that T predicts. A wrong prediction is shown in red,
    together with the true class.

    Args:
        path: the file to write.
        picked: the picked images, in the order of the sheet.
        not_picked: other images of the pool, in the order of the sheet.
        title: the headline.
    """
    rows = -(-max(len(picked), len(not_picked), 1) // _COLUMNS)
    panel = _COLUMNS * (_THUMBNAIL + _GAP) - _GAP
    width = 3 * _MARGIN + 2 * panel
    height = 2 * _MARGIN + _TITLE + rows * (_THUMBNAIL + _CAPTION + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN // 2), title, _INK, ImageFont.load_default(14))
    for left, exhibits, heading in (
        (_MARGIN, picked, "picked: the highest scores"),
        (2 * _MARGIN + panel, not_picked, "not picked: a random sample of the rest"),
    ):
        draw.text((left, _MARGIN + 10), heading, _INK, ImageFont.load_default(13))
        for i, exhibit in enumerate(exhibits):
            x = left + (i % _COLUMNS) * (_THUMBNAIL + _GAP)
            y = _MARGIN + _TITLE + (i // _COLUMNS) * (_THUMBNAIL + _CAPTION + _GAP)
            _paste(sheet, draw, exhibit, x, y)
    sheet.save(path)


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, exhibit: Exhibit, x: int, y: int) -> None:
    thumbnail = Image.fromarray(decode(exhibit.image))
    larger = max(thumbnail.size)
    scale = _THUMBNAIL / larger
    size = (max(1, round(thumbnail.width * scale)), max(1, round(thumbnail.height * scale)))
    # Enlarged small images keep sharp pixels.
    resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    sheet.paste(thumbnail.resize(size, resampling), (x, y))
    font = ImageFont.load_default(11)
    draw.text((x, y + _THUMBNAIL + 2), f"{exhibit.score:.4f}", _INK, font)
    right = exhibit.predicted == exhibit.label
    says = exhibit.predicted if right else f"{exhibit.predicted}, not {exhibit.label}"
    draw.text((x, y + _THUMBNAIL + 15), _fitted(says, font), _FAINT if right else _WRONG, font)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= _THUMBNAIL + _GAP:
        return text
    while text and font.getlength(text + "…") > _THUMBNAIL + _GAP:
        text = text[:-1]
    return text + "…"
