from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import topb
from topb._chunking import TARGET_CHUNK_BYTES, Chunker

pytestmark = pytest.mark.sdk


def chunks_of(rows, *, max_chunk_bytes=4 * 2**20, **limits):
    chunker = Chunker(max_chunk_bytes=max_chunk_bytes, **limits)
    closed = [chunker.add(row) for row in rows]
    closed.append(chunker.close())
    return [request.chunk for request in closed if request is not None]


def image(height, width, fill):
    return np.full((height, width, 3), fill, np.uint8)


def test_small_images_share_a_chunk_of_about_two_mebibytes():
    chunks = chunks_of((f"{row:05}", bytes([row % 256]) * 3000) for row in range(2000))
    sizes = [sum(map(len, chunk.encoded.data)) for chunk in chunks]
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert all(0.99 * TARGET_CHUNK_BYTES < size <= TARGET_CHUNK_BYTES for size in sizes[:-1])
    assert [row_id for chunk in chunks for row_id in chunk.ids] == [f"{row:05}" for row in range(2000)]


def test_another_shape_or_kind_starts_another_chunk():
    rows = [
        ("a", image(4, 4, 1)),
        ("b", image(4, 4, 2)),
        ("c", image(4, 5, 3)),
        ("d", b"jpeg"),
        ("e", b"longer jpeg"),
        ("f", image(4, 4, 4)),
    ]
    chunks = chunks_of(rows)
    assert [list(chunk.ids) for chunk in chunks] == [["a", "b"], ["c"], ["d", "e"], ["f"]]
    assert [(chunk.packed.height, chunk.packed.width) for chunk in chunks] == [(4, 4), (4, 5), (0, 0), (4, 4)]
    assert chunks[0].packed.data == bytes([1]) * 48 + bytes([2]) * 48
    assert list(chunks[2].encoded.data) == [b"jpeg", b"longer jpeg"]
    assert chunks[2].crc32 == zlib.crc32(b"jpeglonger jpeg")


def test_an_array_is_sent_in_c_order():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    (chunk,) = chunks_of([("a", np.asfortranarray(pixels))])
    assert chunk.packed.data == pixels.tobytes()


def test_the_caller_may_reuse_its_buffer():
    def rows():
        array, encoded = image(2, 2, 0), bytearray(b"..")
        for fill in (1, 2):
            array[:] = fill
            yield f"array {fill}", array
        for fill in (3, 4):
            encoded[:] = bytes([fill]) * 2
            yield f"encoded {fill}", encoded

    packed, encoded = chunks_of(rows())
    assert packed.packed.data == bytes([1]) * 12 + bytes([2]) * 12
    assert list(encoded.encoded.data) == [b"\x03\x03", b"\x04\x04"]


def test_an_image_over_the_target_size_has_its_own_chunk():
    chunks = chunks_of([("a", b"x"), ("b", b"y" * (3 * 2**20)), ("c", b"z")])
    assert [list(chunk.ids) for chunk in chunks] == [["a"], ["b"], ["c"]]


def test_an_image_over_the_limit_is_refused_with_its_id_and_row():
    with pytest.raises(topb.LimitExceededError, match=r"row 1 .*'big'.* 1001 bytes.* 1000 ") as caught:
        chunks_of([("a", b"x"), ("big", b"y" * 1001)], max_chunk_bytes=1000)
    assert caught.value.reason == "IMAGE_TOO_LARGE"


def test_integer_ids_are_sent_as_strings():
    (chunk,) = chunks_of([(7, b"a"), (np.int64(-8), b"b"), (2**70, b"c")])
    assert list(chunk.ids) == ["7", "-8", str(2**70)]


@pytest.mark.parametrize("bad_id", [None, 1.0, True, b"id", ("a",), "\ud800"])
def test_ids_of_other_types_are_refused_with_their_row(bad_id):
    with pytest.raises(topb.InvalidRequestError, match="row 1 of the pool") as caught:
        chunks_of([("a", b"x"), (bad_id, b"y")])
    assert caught.value.reason == "ID_INVALID"


@pytest.mark.parametrize(
    ("bad_row", "said"),
    [
        ("a string", "str"),
        (("a", b"x", b"y"), "tuple of 3"),
        (17, "int"),
        (("a", "path.jpg"), "str"),
        (("a", None), "NoneType"),
        (("a", np.zeros((4, 4), np.uint8)), r"uint8 \(4, 4\)"),
        (("a", np.zeros((4, 4, 4), np.uint8)), r"uint8 \(4, 4, 4\)"),
        (("a", np.zeros((4, 4, 3), np.float32)), r"float32 \(4, 4, 3\)"),
        (("a", np.zeros((0, 4, 3), np.uint8)), r"uint8 \(0, 4, 3\)"),
        (("a", np.zeros((2, 4, 4, 3), np.uint8)), r"uint8 \(2, 4, 4, 3\)"),
        (("a", np.zeros(3, np.int64)), r"int64 \(3,\)"),
        (("a", np.zeros(0)), r"float64 \(0,\)"),
        (("a", np.zeros(3), [0.5, 0.5]), " are list"),
        (("a", np.zeros(3), np.zeros((1, 2))), r"float64 \(1, 2\)"),
        (("a", np.zeros(3), np.zeros(2), "b"), "tuple of 4"),
    ],
)
def test_an_invalid_row_is_refused_and_described(bad_row, said):
    with pytest.raises(topb.InvalidRequestError, match=rf"row 1 of the pool.*{said}.*expected") as caught:
        chunks_of([("a", b"x"), bad_row])
    assert caught.value.reason == "POOL_ROW_INVALID"


def test_vectors_are_packed_as_float32_and_share_chunks_of_one_size():
    three, four = np.arange(3, dtype=np.float64), np.arange(4, dtype=np.float16)
    halves = np.array([0.5, 0.5])
    chunks = chunks_of([("a", three), ("b", three + 1), ("c", four), ("d", three, halves), ("e", b"image")])
    assert [list(chunk.ids) for chunk in chunks] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert [(chunk.vectors.width, chunk.vectors.classes) for chunk in chunks[:3]] == [(3, 0), (4, 0), (3, 2)]
    assert chunks[0].vectors.data == np.array([0, 1, 2, 1, 2, 3], "<f4").tobytes()
    assert chunks[1].vectors.data == np.arange(4, dtype="<f4").tobytes()
    assert chunks[2].vectors.probabilities == halves.astype("<f4").tobytes()
    assert chunks[2].crc32 == zlib.crc32(chunks[2].vectors.data + chunks[2].vectors.probabilities)
    assert chunks[3].encoded.data == [b"image"]


images = st.one_of(
    st.binary(max_size=300),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 255)).map(lambda shape: image(*shape)),
)


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), images), max_size=40))
def test_chunks_hold_the_rows_in_order_each_of_one_kind_within_the_limit(rows):
    chunks = chunks_of(rows, max_chunk_bytes=400)
    unpacked = []
    for seq, chunk in enumerate(chunks):
        assert chunk.seq == seq
        data = chunk.packed.data if chunk.WhichOneof("images") == "packed" else b"".join(chunk.encoded.data)
        assert len(data) <= 400
        assert chunk.crc32 == zlib.crc32(data)
        if chunk.WhichOneof("images") == "packed":
            shape = (-1, chunk.packed.height, chunk.packed.width, 3)
            unpacked += zip(chunk.ids, np.frombuffer(data, np.uint8).reshape(shape), strict=True)
        else:
            unpacked += zip(chunk.ids, chunk.encoded.data, strict=True)
    assert len(unpacked) == len(rows)
    for (got_id, got), (given_id, given_image) in zip(unpacked, rows, strict=True):
        assert got_id == given_id
        assert np.array_equal(got, given_image) if isinstance(given_image, np.ndarray) else got == given_image


def test_a_chunk_has_no_more_rows_than_the_server_accepts():
    chunks = chunks_of([(str(row), b"") for row in range(10)], max_chunk_rows=4)
    assert [len(chunk.ids) for chunk in chunks] == [4, 4, 2]


def test_an_id_over_the_limit_is_refused_with_its_row_and_its_start():
    rows = [("é" * 4, b"x"), ("é" * 4 + "a", b"y")]
    with pytest.raises(topb.LimitExceededError, match=r"row 1 .* 9 bytes.* 8 .*'ééééa'") as caught:
        chunks_of(rows, max_id_bytes=8)
    assert caught.value.reason == "ID_TOO_LONG"
