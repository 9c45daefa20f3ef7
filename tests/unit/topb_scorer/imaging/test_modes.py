"""Each mode is reduced to 8-bit RGB by the rule that docs/pools.md states, or skipped with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from topb_scorer.imaging import SkippedImageError, decode

pytestmark = pytest.mark.scorer

SIDE = 16
# All of 0 to 65535 in steps of 257: the upper eight bits are 0 to 255.
GREY16 = (np.arange(SIDE * SIDE) * 257).reshape(SIDE, SIDE).astype(np.uint16)
GREY8 = (GREY16 >> 8).astype(np.uint8)
TWELVE_BITS = GREY16 >> 4
UNIT = (GREY16 / 65535).astype(np.float32)


def saved(pixels: NDArray[Any] | Image.Image, format_: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def png(pixels: NDArray[Any], colour_type: int, transparent: bytes = b"") -> bytes:
    """Return a PNG with 16 bits a channel. Pillow writes none with several channels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    if transparent:
        parts.insert(1, chunk(b"tRNS", transparent))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(
    data: bytes,
    *,
    bits: int,
    photometric: int = 1,
    sample_format: int = 1,
    extra_samples: int = 0,
    order: str = "<",
) -> bytes:
    """Return a TIFF with one strip of grey, and an extra channel if it is named."""
    entries = {256: SIDE, 257: SIDE, 258: bits, 259: 1, 262: photometric}
    if extra_samples:
        entries[338] = extra_samples
    entries |= {273: 8, 277: 2 if extra_samples else 1, 278: SIDE, 279: len(data), 339: sample_format}
    directory = struct.pack(order + "H", len(entries))
    for tag, value in sorted(entries.items()):
        directory += struct.pack(order + "HHII", tag, 4, 1, value)
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8 + len(data))
    return start + data + directory + bytes(4)


def packed_in_twelve_bits(values: NDArray[np.uint16]) -> bytes:
    return int("".join(f"{value:012b}" for value in values.ravel()), 2).to_bytes(values.size * 3 // 2, "big")


def grey(pixels: NDArray[np.integer]) -> NDArray[np.uint8]:
    return np.repeat(pixels.astype(np.uint8)[..., None], 3, axis=2)


def over_black(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.rint(pixels * (alpha[..., None] / 255)).astype(np.uint8)


COLOUR16 = np.dstack([GREY16, GREY16[::-1], GREY16.T])
COLOUR8 = (COLOUR16 >> 8).astype(np.uint8)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        pytest.param(saved(GREY16, "PNG"), grey(GREY8), id="PNG, 16-bit grey"),
        pytest.param(png(COLOUR16, 2), COLOUR8, id="PNG, 16-bit colour"),
        pytest.param(
            png(np.dstack([COLOUR16, GREY16]), 6),
            over_black(COLOUR8, GREY8),
            id="PNG, 16-bit colour and alpha",
        ),
        pytest.param(
            png(np.dstack([GREY16, GREY16.T]), 4), over_black(grey(GREY8), GREY8.T), id="PNG, 16-bit LA"
        ),
        pytest.param(
            png(GREY16, 0, struct.pack(">H", 257 * 99)),
            grey(np.where(GREY8 == 99, 0, GREY8)),
            id="PNG, 16-bit grey with a transparent value",
        ),
        pytest.param(saved(GREY16, "TIFF", compression="tiff_lzw"), grey(GREY8), id="TIFF, compressed"),
        pytest.param(tiff(GREY16.tobytes(), bits=16), grey(GREY8), id="TIFF, little-endian"),
        pytest.param(
            tiff(GREY16.astype(">u2").tobytes(), bits=16, order=">"), grey(GREY8), id="TIFF, big-endian"
        ),
        pytest.param(
            tiff(GREY16.tobytes(), bits=16, photometric=0), grey(255 - GREY8), id="TIFF, 16 bits, 0 is white"
        ),
        pytest.param(
            tiff(GREY8.tobytes(), bits=8, photometric=0), grey(255 - GREY8), id="TIFF, 8 bits, 0 is white"
        ),
        pytest.param(tiff(packed_in_twelve_bits(TWELVE_BITS), bits=12), grey(GREY8), id="TIFF, 12 bits"),
        pytest.param(saved(UNIT, "TIFF"), grey(GREY8), id="TIFF, floats"),
        pytest.param(saved(UNIT, "TIFF", compression="tiff_lzw"), grey(GREY8), id="TIFF, compressed floats"),
        pytest.param(
            tiff(UNIT.tobytes(), bits=32, photometric=0, sample_format=3),
            grey(255 - GREY8),
            id="TIFF, floats, 0 is white",
        ),
        pytest.param(saved(UNIT, "PPM"), grey(GREY8), id="PFM"),
        pytest.param(b"P5 16 16 65535\n" + GREY16.astype(">u2").tobytes(), grey(GREY8), id="PGM, 16 bits"),
        pytest.param(
            b"P5 16 16 4095\n" + TWELVE_BITS.astype(">u2").tobytes(), grey(GREY8), id="PGM, 12 bits"
        ),
        pytest.param(saved(GREY16, "JPEG2000"), grey(GREY8), id="JPEG 2000, 16 bits"),
        pytest.param(
            saved(Image.new("LA", (16, 16), (200, 128)), "PNG"), grey(np.full((16, 16), 100)), id="LA"
        ),
        pytest.param(
            tiff(bytes([100, 128]) * 256, bits=8, extra_samples=1), grey(np.full((16, 16), 100)), id="La"
        ),
        pytest.param(saved(Image.new("1", (16, 16), 1), "PNG"), grey(np.full((16, 16), 255)), id="1"),
    ],
)
def test_a_mode_is_decoded_by_its_rule(encoded: bytes, expected: NDArray[np.uint8]) -> None:
    decoded = decode(encoded)
    assert decoded.shape == expected.shape
    # Alpha and rounding move a value by at most one.
    assert np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "P", "PA", "RGBX"])
def test_other_colour_spaces_become_the_nearest_rgb(mode: str) -> None:
    # A colour of Pillow's default palette.
    colour = Image.new("RGBA", (16, 16), (204, 102, 51)).convert("RGBA" if mode == "PA" else "RGB")
    decoded = decode(saved(colour.convert(mode), "TIFF"))
    assert np.abs(decoded[8, 8].astype(int) - (204, 102, 51)).max() <= 2


def test_an_image_of_many_strips_is_judged_and_converted_as_a_whole() -> None:
    tall = np.zeros((70_000, 16), np.uint16)
    tall[-1] = 65535
    assert np.array_equal(decode(saved(tall, "PNG")), grey(tall >> 8))


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        pytest.param(saved(TWELVE_BITS, "PNG"), "IMAGE_RANGE_UNKNOWN", id="PNG, 12 bits in 16"),
        pytest.param(saved(TWELVE_BITS, "TIFF"), "IMAGE_RANGE_UNKNOWN", id="TIFF, 12 bits in 16"),
        pytest.param(png(COLOUR16 >> 4, 2), "IMAGE_RANGE_UNKNOWN", id="PNG, 12 bits in 16, colour"),
        pytest.param(
            png(np.dstack([COLOUR16 >> 4, GREY16]), 6), "IMAGE_RANGE_UNKNOWN", id="12 bits in 16 and alpha"
        ),
        pytest.param(saved(GREY16.astype(np.int32), "TIFF"), "IMAGE_RANGE_UNKNOWN", id="TIFF, 32 bits"),
        pytest.param(
            tiff(GREY16.astype(np.uint32).tobytes(), bits=32),
            "IMAGE_RANGE_UNKNOWN",
            id="TIFF, unsigned 32 bits",
        ),
        pytest.param(
            tiff(GREY16.tobytes(), bits=16, sample_format=2), "IMAGE_RANGE_UNKNOWN", id="TIFF, signed 16 bits"
        ),
        *(
            pytest.param(saved(values, "TIFF"), "IMAGE_RANGE_UNKNOWN", id=f"TIFF, floats, {name}")
            for name, values in {
                "0 to 255": UNIT * 255,
                "negative": UNIT - 0.5,
                "not finite": np.where(UNIT > 0.5, np.nan, UNIT).astype(np.float32),
            }.items()
        ),
        pytest.param(
            png(COLOUR16, 2, struct.pack(">HHH", 0, 0, 0)),
            "IMAGE_RANGE_UNKNOWN",
            id="PNG, 16-bit colour with a transparent colour",
        ),
    ],
)
def test_an_image_whose_range_is_unknown_is_skipped(encoded: bytes, reason: str) -> None:
    with pytest.raises(SkippedImageError) as caught:
        decode(encoded)
    assert caught.value.reason == reason
    assert "8 bits a channel" in caught.value.detail


def test_a_dark_image_of_sixteen_bits_a_pixel_is_decoded() -> None:
    pixels = struct.pack("<256H", *[0b0000100001000001] * 256)
    header = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    offset = 14 + len(header) + len(masks)
    bmp = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + masks + pixels
    assert decode(bmp)[0, 0].tolist() == [8, 8, 8]
