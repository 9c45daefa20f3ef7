from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError

from topb.v1 import selection_pb2 as pb
from topb_scorer.service.wire import repeated_too_often

pytestmark = pytest.mark.scorer

IDS, DATA = "topb.v1.PoolChunk.ids", "topb.v1.EncodedImages.data"
LIMITS = {IDS: 3, DATA: 3}
Request = pb.SelectBatchFromStreamRequest


def exceeded(content: bytes) -> str | None:
    return repeated_too_often(content, Request.DESCRIPTOR, LIMITS)


def chunk(ids: int, images: int) -> bytes:
    encoded = pb.EncodedImages(data=[b"x" * 300] * images)
    return Request(
        chunk=pb.PoolChunk(seq=2**40, crc32=7, ids=["a"] * ids, encoded=encoded)
    ).SerializeToString()


@pytest.mark.parametrize(("ids", "images", "name"), [(3, 3, None), (4, 3, IDS), (3, 4, DATA), (0, 0, None)])
def test_rows_are_counted_before_a_chunk_is_parsed(ids: int, images: int, name: str | None) -> None:
    assert exceeded(chunk(ids, images)) == name


def test_parts_of_one_message_are_counted_together() -> None:
    # A parser merges them.
    assert exceeded(chunk(2, 2) + chunk(1, 1)) is None
    assert exceeded(chunk(2, 2) + chunk(2, 1)) == IDS


def test_other_fields_are_not_counted() -> None:
    packed = Request(chunk=pb.PoolChunk(ids=["a"], packed=pb.PackedImages(data=b"\x1a\x00" * 100)))
    assert exceeded(packed.SerializeToString()) is None
    start = Request(start=pb.StreamStart(spec=pb.SelectionSpec(exclude={"ids": ["a"] * 100})))
    assert exceeded(start.SerializeToString()) is None


def test_a_message_that_is_cut_short_is_left_to_the_parser() -> None:
    content = chunk(3, 3)
    assert [exceeded(content[:size]) for size in range(len(content))] == [None] * len(content)
    assert exceeded(chunk(9, 0)[:-1]) == IDS


@pytest.mark.parametrize("content", [b"\x13" + chunk(9, 9), b"\x80" * 20 + chunk(9, 9)])
def test_what_hides_rows_is_refused(content: bytes) -> None:
    with pytest.raises(DecodeError):
        exceeded(content)


def test_a_tag_with_superfluous_zeros_is_counted() -> None:
    row = b"\x9a\x80\x00\x00"  # Field 3 of a chunk, without a byte.
    content = b"\x12" + bytes([4 * len(row)]) + 4 * row
    assert list(Request.FromString(content).chunk.ids) == [""] * 4
    assert exceeded(content) == IDS


@pytest.mark.parametrize("field", ["ids", "digests"])
def test_excluded_images_are_counted_in_requests_of_both_kinds(field: str) -> None:
    name = f"topb.v1.Exclusion.{field}"
    spec = pb.SelectionSpec(exclude={field: [b"x"] * 4 if field == "digests" else ["x"] * 4})
    for message in (Request(start=pb.StreamStart(spec=spec)), pb.SelectBatchRequest(spec=spec)):
        content = message.SerializeToString()
        assert repeated_too_often(content, message.DESCRIPTOR, {name: 3}) == name
        assert repeated_too_often(content, message.DESCRIPTOR, {name: 4}) is None
