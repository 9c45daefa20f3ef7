from __future__ import annotations

import zlib
from typing import Any, get_args

import numpy as np
import pytest

from topb.pools import Pool, PoolFormatName
from topb.results import Accounts, SelectionResult, SkippedRow
from topb.v1 import selection_pb2 as pb
from topb_scorer.bundle import Bundle
from topb_scorer.errors import InvalidRequestError, LimitExceededError, ScorerError
from topb_scorer.pools.pool import NO_DIGEST
from topb_scorer.selecting.spec import SelectionSpec
from topb_scorer.service.translate import (
    duration_message,
    excluded_images,
    model_message,
    pool_of,
    shard_of,
    spec_of,
    summary_message,
)

pytestmark = pytest.mark.scorer

MANY = 2**20


def encoded_chunk(seq: int, ids: list[str], images: list[bytes], *, crc32: int | None = None) -> pb.PoolChunk:
    crc32 = zlib.crc32(b"".join(images)) if crc32 is None else crc32
    return pb.PoolChunk(seq=seq, crc32=crc32, ids=ids, encoded=pb.EncodedImages(data=images))


def packed_chunk(ids: list[str], data: bytes, height: int, width: int) -> pb.PoolChunk:
    packed = pb.PackedImages(data=data, height=height, width=width)
    return pb.PoolChunk(seq=0, crc32=zlib.crc32(data), ids=ids, packed=packed)


def refusal(chunk: pb.PoolChunk, *, seq: int = 0, max_bytes: int = MANY, max_rows: int = MANY) -> ScorerError:
    with pytest.raises((InvalidRequestError, LimitExceededError)) as caught:
        shard_of(chunk, seq, max_bytes=max_bytes, max_rows=max_rows)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "spec"),
    [
        ({"budget": 3}, SelectionSpec(3, "aalu", 0, {}, {})),
        (
            {
                "budget": 7,
                "strategy": "entropy",
                "seed": 2**64 - 1,
                "strategy_options": {"diversify": "2"},
                "include_labelled": True,
            },
            SelectionSpec(7, "entropy", 2**64 - 1, {"a": NO_DIGEST}, {"diversify": "2"}, True),
        ),
    ],
    ids=["defaults", "whole"],
)
def test_a_spec_message_is_translated_completely(fields: dict[str, Any], spec: SelectionSpec) -> None:
    assert spec_of(pb.SelectionSpec(**fields), spec.exclude) == spec


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "BUDGET_NOT_POSITIVE"),
        ({"budget": -1}, "BUDGET_NOT_POSITIVE"),
        ({"budget": 2**62}, "BUDGET_TOO_LARGE"),
        ({"budget": 1, "strategy": "bald"}, "STRATEGY_UNKNOWN"),
        ({"budget": 1, "strategy_options": {"metric": "cosine"}}, "STRATEGY_OPTION_UNKNOWN"),
    ],
)
def test_a_spec_that_cannot_be_served_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises((InvalidRequestError, LimitExceededError)) as caught:
        spec_of(pb.SelectionSpec(**fields), {})
    assert caught.value.reason == reason


def test_an_exclusion_has_a_digest_for_each_id_or_none() -> None:
    digest = bytes(range(16))
    assert excluded_images(pb.Exclusion(ids=["a", "b"])) == {"a": NO_DIGEST, "b": NO_DIGEST}
    both = pb.Exclusion(ids=["a", "b"], digests=[digest, b""])
    assert excluded_images(both) == {"a": digest, "b": NO_DIGEST}


@pytest.mark.parametrize("digests", [[bytes(16)], [bytes(16), bytes(8)]], ids=["too few", "too short"])
def test_digests_that_do_not_belong_to_the_ids_are_refused(digests: list[bytes]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        excluded_images(pb.Exclusion(ids=["a", "b"], digests=digests))
    assert caught.value.reason == "EXCLUSION_DIGESTS"


def test_a_pool_message_is_translated_completely() -> None:
    message = pb.Pool(uri="u", id_column="key", path_column="file", format=pb.POOL_FORMAT_CSV)
    assert pool_of(message) == Pool("u", format="csv", id_column="key", path_column="file")
    assert pool_of(pb.Pool(uri="u")) == Pool("u")


def test_every_pool_format_is_translated_and_an_unknown_one_is_refused() -> None:
    formats = {pool_of(pb.Pool(format=number)).format for number in pb.PoolFormat.values()}
    assert formats == {None, *get_args(PoolFormatName)}
    message = pb.Pool()
    message.MergeFromString(b"\x10\x63")
    with pytest.raises(InvalidRequestError) as caught:
        pool_of(message)
    assert caught.value.reason == "POOL_FORMAT"


IMAGES = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)


@pytest.mark.parametrize(
    ("chunk", "images"),
    [
        (encoded_chunk(5, ["a", "b"], [b"one", b""]), [b"one", b""]),
        (packed_chunk(["a", "b"], IMAGES.tobytes(), 3, 4), IMAGES),
        (encoded_chunk(0, [], []), []),
        (packed_chunk([], b"", 0, 0), []),
        (packed_chunk([], b"", 4, 4), []),
        (packed_chunk([], b"", 2**32 - 1, 2**32 - 1), []),
    ],
)
def test_a_chunk_becomes_a_shard_with_its_images(chunk: pb.PoolChunk, images: Any) -> None:
    shard = shard_of(chunk, chunk.seq, max_bytes=MANY, max_rows=MANY)
    items = list(shard.items())
    assert (shard.seq, shard.rows) == (chunk.seq, len(images))
    assert [item.id for item in items] == list("ab"[: len(images)])
    assert all(np.array_equal(item.image, image) for item, image in zip(items, images, strict=True))


@pytest.mark.parametrize(("seq", "expected"), [(0, 1), (2, 1), (2**64 - 1, 0)])
def test_a_chunk_out_of_sequence_is_refused(seq: int, expected: int) -> None:
    error = refusal(encoded_chunk(seq, ["a"], [b"x"]), seq=expected)
    assert error.reason == "CHUNK_OUT_OF_SEQUENCE"
    assert error.metadata == {"seq": f"{seq}", "expected": f"{expected}"}


def test_a_chunk_of_exactly_the_size_limit_is_accepted() -> None:
    assert shard_of(encoded_chunk(0, ["a", "b"], [b"xx", b"yyy"]), 0, max_bytes=5, max_rows=2).rows == 2
    assert refusal(encoded_chunk(0, ["a", "b"], [b"xx", b"yyy"]), max_bytes=4).reason == "CHUNK_TOO_LARGE"
    assert refusal(packed_chunk(["a"], bytes(12), 2, 2), max_bytes=11).reason == "CHUNK_TOO_LARGE"


def test_a_chunk_with_too_many_images_is_refused() -> None:
    assert refusal(encoded_chunk(0, ["a", "b"], [b"", b""]), max_rows=1).reason == "CHUNK_TOO_LARGE"
    assert refusal(encoded_chunk(0, [], [b"", b""]), max_rows=1).reason == "CHUNK_TOO_LARGE"
    assert refusal(packed_chunk(["a", "b"], b"", 1, 1), max_rows=1).reason == "CHUNK_TOO_LARGE"


def test_a_chunk_with_too_many_bytes_of_ids_is_refused() -> None:
    assert shard_of(encoded_chunk(0, ["ab", "é"], [b"", b""]), 0, max_bytes=4, max_rows=2).rows == 2
    error = refusal(encoded_chunk(0, ["ab", "é"], [b"", b""]), max_bytes=3)
    assert error.reason == "CHUNK_TOO_LARGE"
    assert "4 bytes of ids; the limit is 3" in str(error)


def test_a_chunk_with_a_wrong_checksum_is_refused() -> None:
    whole = encoded_chunk(0, ["a"], [b"image"])
    altered = encoded_chunk(0, ["a"], [b"imagf"], crc32=whole.crc32)
    assert refusal(altered).reason == "CHUNK_CHECKSUM"
    # Images that ran into each other have the checksum of what was sent, and too few rows.
    assert refusal(encoded_chunk(0, ["a", "b"], [b"onetwo"])).reason == "CHUNK_MALFORMED"


@pytest.mark.parametrize(
    "chunk",
    [
        pb.PoolChunk(ids=["a"]),
        encoded_chunk(0, ["a"], []),
        encoded_chunk(0, ["a"], [b"x", b"y"]),
        packed_chunk(["a"], bytes(12), 0, 0),
        packed_chunk(["a"], bytes(12), 2, 3),
        packed_chunk(["a", "b"], bytes(12), 2, 2),
        packed_chunk([], bytes(12), 2, 2),
        packed_chunk(["a"], b"", 2, 2),
        packed_chunk(["a"], b"", 0, 2),
        packed_chunk(["a"], bytes(12), 2**32 - 1, 2**32 - 1),
    ],
)
def test_a_malformed_chunk_is_refused(chunk: pb.PoolChunk) -> None:
    assert refusal(chunk).reason == "CHUNK_MALFORMED"


def test_a_summary_holds_every_field_except_the_picks() -> None:
    accounts = Accounts(
        read=9,
        scored=4,
        skipped={"IMAGE_CORRUPT": 2, "FILE_MISSING": 1},
        duplicate=1,
        excluded=1,
        excluded_unmatched=3,
        excluded_labelled=1,
        labelled_unmatched=7,
        skipped_examples=(SkippedRow("x", "FILE_MISSING", "gone"),),
    )
    result = SelectionResult((), accounts, "m", "margin", 2**64 - 1, 5, 1.25)
    message = summary_message(result, 4)
    assert (message.model, message.strategy, message.seed, message.budget) == ("m", "margin", 2**64 - 1, 5)
    assert message.pick_count == 4
    assert message.elapsed.ToTimedelta().total_seconds() == 1.25
    counts = message.accounts
    assert (counts.read, counts.scored, counts.duplicate, counts.excluded) == (9, 4, 1, 1)
    assert (counts.excluded_unmatched, counts.excluded_labelled, counts.labelled_unmatched) == (3, 1, 7)
    assert {count.reason: count.count for count in counts.skipped} == dict(accounts.skipped)
    (example,) = counts.skipped_examples
    assert (example.id, example.reason, example.detail) == ("x", "FILE_MISSING", "gone")


def test_a_model_message_says_whether_it_is_the_default(bundle: Bundle) -> None:
    assert model_message(bundle, bundle.model_id).is_default
    assert not model_message(bundle, "another").is_default
    assert model_message(bundle, "").bundle == bundle.manifest


def test_a_model_message_names_the_strategies_that_the_model_can_serve(bundle: Bundle) -> None:
    served = model_message(bundle, "").served_strategies
    assert {"aalu", "entropy", "core_set"} <= {*served}
    assert "vaal" not in served


@pytest.mark.parametrize("seconds", [0, 1e-6, 0.1, 1.5, 1e6])
def test_durations_keep_their_microseconds(seconds: float) -> None:
    assert duration_message(seconds).ToMicroseconds() == round(seconds * 1e6)
