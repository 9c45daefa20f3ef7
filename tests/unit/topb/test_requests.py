"""What clients reject before anything is sent, and what they send for valid arguments."""

from __future__ import annotations

import math
import uuid
from pathlib import Path

import numpy as np
import pytest

import topb
from topb import _requests
from topb._channel import channel_arguments
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk


@pytest.fixture
def client():
    with topb.Client("127.0.0.1:1") as client:
        yield client


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (Path("/pools/a.parquet"), selection_pb2.Pool(uri="/pools/a.parquet")),
        ("s3://bucket/*.tar", selection_pb2.Pool(uri="s3://bucket/*.tar")),
        (topb.Pool("/p"), selection_pb2.Pool(uri="/p")),
        (
            topb.Pool(Path("/p"), "csv", id_column="key", image_column="picture", path_column="file"),
            selection_pb2.Pool(
                uri="/p",
                format=selection_pb2.POOL_FORMAT_CSV,
                id_column="key",
                image_column="picture",
                path_column="file",
            ),
        ),
    ],
)
def test_the_uri_of_a_served_pool_is_sent_unchanged(pool, message):
    assert _requests.served_pool(pool) == message


def test_a_request_without_an_id_gets_a_new_one():
    assert uuid.UUID(_requests.request_id_of(None)) != uuid.UUID(_requests.request_id_of(None))
    assert _requests.request_id_of("round-3") == "round-3"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": "5"}, "budget is '5'"),
        ({"budget": 2.0}, "budget is 2.0"),
        ({"budget": True}, "budget is True"),
        ({"budget": 2**63}, "budget is 9223372036854775808"),
        ({"seed": -1}, "seed is -1"),
        ({"strategy": None}, "strategy is None"),
        ({"model": 5}, "model is 5"),
        ({"strategy_options": {"k": 5}}, "strategy option k is 5"),
        ({"exclude": "a.parquet"}, "exclude is 'a.parquet'"),
        ({"exclude": 5}, "exclude is 5"),
        ({"exclude": {"a": "0123"}}, "content digests of exclude must be bytes"),
        ({"exclude": ["a", 1.5]}, "row 1 of exclude"),
        ({"pool": topb.Pool("/p", format="tar")}, 'format is "tar"'),
        ({"pool": topb.Pool(5)}, "the URI of the pool is 5"),
        ({"pool": b"bytes"}, "pool is of type bytes"),
        ({"pool": 17}, "pool is of type int"),
        ({"pool": None}, "pool is of type NoneType"),
        ({"pool": {"a": b"x"}}, "pool is of type dict"),
        ({"pool": [("a", b"x")], "detached": True}, "detached"),
        ({"request_id": ""}, "request_id is empty"),
        ({"request_id": 5}, "request_id is 5"),
        ({"timeout": 0}, "timeout is 0"),
    ],
)
def test_invalid_arguments_are_refused(client, arguments, said):
    with pytest.raises(topb.InvalidRequestError, match=said):
        client.select_batch(**{"pool": "/p", "budget": 1} | arguments)


def test_an_asynchronous_pool_is_refused_by_a_blocking_client(client):
    async def pool():
        yield "a", b"x"

    with pytest.raises(topb.InvalidRequestError, match="async_generator"):
        client.select_batch(pool(), 1)


def test_more_excluded_ids_than_a_message_holds_are_refused_with_advice(client):
    with pytest.raises(topb.LimitExceededError, match="ExcludeFile"):
        client.select_batch("/p", 1, exclude=("x" * 2**20 for _ in range(65)))


def test_an_image_that_is_not_encoded_is_refused(client):
    with pytest.raises(topb.InvalidRequestError, match=r"image 1 .*ndarray"):
        client.score_images([b"a", np.zeros((2, 2, 3), np.uint8)])


def test_a_state_that_is_unknown_is_refused(client):
    with pytest.raises(topb.InvalidRequestError, match="'done' is not a state"):
        client.list_selections(states=["done"])


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "soon"])
def test_an_invalid_timeout_is_refused(timeout):
    with pytest.raises(topb.InvalidRequestError, match="timeout"):
        topb.Client("localhost:1", timeout=timeout)


@pytest.mark.parametrize("kind", [topb.Client, topb.AsyncClient])
@pytest.mark.parametrize("address", ["localhost", "", ":50051", "localhost:port", "http://localhost:50051"])
def test_an_invalid_address_is_refused(kind, address):
    with pytest.raises(topb.InvalidRequestError, match=r"host:port") as caught:
        kind(address)
    assert caught.value.reason == "ADDRESS_INVALID"


def test_invalid_tls_options_are_refused(tmp_path):
    with pytest.raises(topb.InvalidRequestError, match="both, or neither"):
        topb.TlsOptions(certificate_file="own.pem")
    with pytest.raises(topb.InvalidRequestError, match=r"missing\.pem"):
        channel_arguments("localhost:1", topb.TlsOptions(ca_file=tmp_path / "missing.pem"))
