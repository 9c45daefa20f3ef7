from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from support.images import encode, random_image
from topb.image_input import ImageInput, ResizeRule
from topb_scorer.errors import SelectionCancelledError
from topb_scorer.imaging import ImageLimits, PixelBudget, SkippedImageError, decode, fit, load

pytestmark = pytest.mark.scorer

UNDECODABLE = {"IMAGE_CORRUPT", "IMAGE_FORMAT_UNKNOWN"}
TARGET = ImageInput(16, 16)
COVERED = ImageInput(16, 16, ResizeRule.COVER_AND_CENTER_CROP)


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def picture(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    return random_image(7, height, width)


def skip_of(image: bytes | NDArray[Any], limits: ImageLimits | None = None) -> str:
    with pytest.raises(SkippedImageError) as caught:
        load(image, TARGET, limits or ImageLimits())
    return caught.value.reason


def claiming_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("format_", "options", "mean_error"),
    [
        *((format_, {}, 0) for format_ in ("PNG", "BMP", "TIFF", "PPM", "QOI")),
        ("WEBP", {"lossless": True}, 0),
        *((format_, {}, 6) for format_ in ("JPEG", "WEBP")),
    ],
)
def test_every_supported_format_is_decoded(format_: str, options: dict[str, Any], mean_error: float) -> None:
    decoded = decode(saved(Image.fromarray(picture()), format_, **options))
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - picture()).mean() <= mean_error


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_of_another_mode_becomes_rgb(mode: str) -> None:
    encoded = saved(Image.fromarray(picture()).convert(mode), "JPEG", quality=95)
    assert np.array_equal(decode(encoded), np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_turned_upright_as_its_exif_says(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    encoded = saved(Image.fromarray(picture()), format_, exif=exif, **options.get(format_, {}))
    # From 5 on, rows and columns are exchanged; then rows, columns or both run backwards.
    turned = picture().transpose(1, 0, 2) if orientation >= 5 else picture()
    turned = turned[::-1] if orientation in {3, 4, 7, 8} else turned
    turned = turned[:, ::-1] if orientation in {2, 3, 6, 7} else turned
    decoded = decode(encoded)
    assert decoded.shape == turned.shape
    assert np.abs(decoded.astype(int) - turned).max() <= (8 if format_ == "JPEG" else 0)


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_keeps_its_upper_eight_bits(format_: str) -> None:
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    image = Image.fromarray(values)
    decoded = decode(saved(image.convert("I") if format_ == "PPM" else image, format_))
    assert np.array_equal(decoded, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_transparency_is_laid_over_black() -> None:
    rgba = np.dstack([picture(), np.full((24, 32), 255, np.uint8)])
    rgba[:, :16, 3] = 0
    decoded = decode(saved(Image.fromarray(rgba), "PNG"))
    assert not decoded[:, :16].any()
    assert np.array_equal(decoded[:, 16:], picture()[:, 16:])


@pytest.mark.parametrize(
    ("format_", "transparency", "first"),
    [("PNG", 0, [0, 0, 0]), ("GIF", 0, [0, 0, 0]), ("PNG", bytes([128, 255]), [100, 50, 25])],
)
def test_a_transparent_colour_of_a_palette_is_laid_over_black(
    format_: str, transparency: int | bytes, first: list[int]
) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([200, 100, 50, 10, 20, 30])
    image.paste(0, (0, 0, 8, 16))
    decoded = decode(saved(image, format_, transparency=transparency))
    assert decoded[0, 0].tolist() == first
    assert decoded[0, 15].tolist() == [10, 20, 30]


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_used(format_: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if format_ == "WEBP" else {}
    encoded = saved(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    assert decode(encoded)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("image", "reasons"),
    [
        (b"", {"IMAGE_EMPTY"}),
        *((encoded, UNDECODABLE) for encoded in (b"id,label\n1,cat\n", b"\0" * 100, b"\xff\xd8\xff", b"GIF")),
        # Pillow would run a PostScript interpreter.
        (encode(picture(), "EPS"), {"IMAGE_FORMAT_UNKNOWN"}),
        *(
            (np.zeros(shape, np.uint8), {"IMAGE_SHAPE"})
            for shape in ((4, 4), (4, 4, 4), (0, 4, 3), (1, 4, 4, 3))
        ),
        (np.zeros((4, 4, 3), np.float32), {"IMAGE_SHAPE"}),
    ],
)
def test_an_input_that_is_not_an_image_is_skipped(image: bytes | NDArray[Any], reasons: set[str]) -> None:
    assert skip_of(image) in reasons


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_file_truncated_at_any_byte_is_skipped(format_: str) -> None:
    encoded = encode(np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8), format_)
    for length in range(1, int(0.9 * len(encoded)), max(1, len(encoded) // 40)):
        assert skip_of(encoded[:length]) in UNDECODABLE, length


@given(st.data(), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]))
@settings(max_examples=80, deadline=None)
def test_a_damaged_file_is_either_decoded_or_skipped(data: st.DataObject, format_: str) -> None:
    encoded = bytearray(encode(picture(), format_))
    for _ in range(data.draw(st.integers(1, 8))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = load(bytes(encoded), TARGET, ImageLimits(max_pixels=10_000))
    except SkippedImageError as error:
        assert error.reason in {*UNDECODABLE, "IMAGE_TOO_LARGE"}  # noqa: PT017
    else:
        assert (decoded.shape, decoded.dtype) == ((16, 16, 3), np.uint8)


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (10_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_a_small_file_that_claims_a_huge_image_is_not_decoded(width: int, height: int) -> None:
    bomb = claiming_png(width, height)
    assert len(bomb) < 200
    assert skip_of(bomb) == "IMAGE_TOO_LARGE"


def test_images_of_exactly_the_limits_are_accepted() -> None:
    encoded = encode(picture())
    assert decode(encoded, ImageLimits(len(encoded), 24 * 32)).shape == (24, 32, 3)
    few_bytes, few_pixels = ImageLimits(max_bytes=len(encoded) - 1), ImageLimits(max_pixels=24 * 32 - 1)
    for image, limits in ((encoded, few_bytes), (encoded, few_pixels), (picture(), few_pixels)):
        assert skip_of(image, limits) == "IMAGE_TOO_LARGE"


def test_rare_formats_are_decoded_by_threads_that_start_at_the_same_time() -> None:
    program = """
import base64, sys, threading
from topb_scorer.imaging import decode
encoded = base64.b64decode(sys.argv[1])
sys.setswitchinterval(1e-6)
start = threading.Barrier(16)
decoded = []
def work():
    start.wait()
    decoded.append(decode(encoded).shape)
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(decoded))
"""
    argument = base64.b64encode(encode(picture(), "WEBP")).decode()
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, argument], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "16\n"


def test_an_array_and_its_lossless_file_give_the_same_pixels() -> None:
    assert np.array_equal(load(picture(), TARGET), load(encode(picture()), TARGET))


@pytest.mark.parametrize("size", [(16, 16), (24, 32), (301, 411)])
@pytest.mark.parametrize("target", [TARGET, COVERED, ImageInput(400, 350)])
def test_a_jpeg_is_resized_as_its_rgb_pixels_are(size: tuple[int, int], target: ImageInput) -> None:
    encoded = encode(random_image(1, *size), "JPEG")
    rgb = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    assert np.array_equal(decode(encoded), rgb)
    assert np.array_equal(load(encoded, target), fit(rgb, target))


def test_an_image_of_many_strips_is_laid_over_black_as_a_whole() -> None:
    random = np.random.default_rng(0)
    rgba = random.integers(0, 256, (1100, 700, 4)).astype(np.uint8)
    whole = Image.new("RGB", (700, 1100))
    whole.paste(Image.fromarray(rgba), mask=Image.fromarray(rgba).getchannel("A"))
    assert np.array_equal(decode(saved(Image.fromarray(rgba), "PNG", compress_level=1)), np.asarray(whole))


class Checks:
    """A check that cancels at its n-th call."""

    def __init__(self, cancel_at: int = -1) -> None:
        self.calls = 0
        self._cancel_at = cancel_at

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self._cancel_at:
            raise SelectionCancelledError


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM"])
def test_a_cancel_ends_the_decoding_of_an_image_between_its_parts(format_: str) -> None:
    random = np.random.default_rng(0)
    encoded = encode(random.integers(0, 256, (600, 600, 3)).astype(np.uint8), format_)
    whole = Checks()
    load(encoded, TARGET, check=whole)
    for cancel_at in range(1, whole.calls + 1):
        checks = Checks(cancel_at)
        with pytest.raises(SelectionCancelledError):
            load(encoded, TARGET, check=checks)
        assert checks.calls == cancel_at


@pytest.mark.timeout(60)
def test_an_image_waits_until_its_pixels_are_free() -> None:
    budget, encoded = PixelBudget(24 * 32), encode(picture())
    reads = Checks()
    load(encoded, TARGET, check=reads)
    with budget.hold(1, lambda: None), pytest.raises(SelectionCancelledError):
        load(encoded, TARGET, budget=budget, check=Checks(reads.calls + 1))
    assert np.array_equal(load(encoded, TARGET, budget=budget), load(encoded, TARGET))


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    image = random_image(3)
    assert fit(image, TARGET) is image


def test_stretching_keeps_the_whole_image_and_covering_its_centre() -> None:
    wide = np.repeat(np.eye(3, dtype=np.uint8) * 255, 16, axis=0)[None].repeat(16, axis=0)
    stretched = fit(wide, TARGET)
    assert stretched[8, 1, 0] > 200
    assert stretched[8, 14, 2] > 200
    assert np.array_equal(fit(wide, COVERED), wide[:, 16:32])
    assert np.array_equal(fit(wide.transpose(1, 0, 2), COVERED), wide[:, 16:32].transpose(1, 0, 2))


@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    target=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    rule=st.sampled_from([ResizeRule.STRETCH, ResizeRule.COVER_AND_CENTER_CROP]),
)
@settings(max_examples=150, deadline=None)
def test_every_size_can_be_resized_to_every_other(
    size: tuple[int, int], target: tuple[int, int], rule: ResizeRule
) -> None:
    image = np.full((*size, 3), 77, np.uint8)
    fitted = fit(image, ImageInput(*target, rule))
    assert fitted.shape == (*target, 3)
    assert (fitted == 77).all()


@pytest.mark.parametrize("side", [29, 58, 676])
def test_covering_a_square_with_a_square_crops_nothing(side: int) -> None:
    image = random_image(side, side, side)
    for target in (7, 49, 69):
        covered = fit(image, ImageInput(target, target, ResizeRule.COVER_AND_CENTER_CROP))
        assert np.array_equal(covered, fit(image, ImageInput(target, target)))
