"""Streamed selections without a network."""

from __future__ import annotations

import itertools

import pytest

import topb
from support.scripted_server import CHUNK, CHUNKS, POOL, StreamServer
from topb._pool_stream import PoolStream, Response
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk

POINTS = [
    ("accepted", 0),
    *((what, seq) for seq in range(CHUNKS) for what in ("received", "committed", "acknowledged")),
    ("end", 0),
    ("summary", 0),
]


class BrokenError(Exception):
    pass


class Context:
    """The part of a servicer context that the scripted servers use."""

    def set_trailing_metadata(self, metadata):
        pass

    def abort(self, *_):
        raise BrokenError


def converse(stream, server, rows):
    """Drive a stream over one connection to a server that acknowledges each chunk at once."""

    def requests():
        yield stream.start()
        while not stream.all_sent:
            request = stream.next_request()
            if request is not None:
                yield request
            elif (row := next(rows, None)) is not None:
                stream.add(row)
            else:
                stream.close()

    for event in server(requests(), Context()):
        stream.receive(event)
    return stream.result()


def new_stream(progress=None):
    return PoolStream(selection_pb2.SelectionSpec(budget=5), "r", progress)


def accepted(window=4, max_chunk_bytes=CHUNK, **fields):
    return Response(
        accepted=selection_pb2.StreamAccepted(window=window, max_chunk_bytes=max_chunk_bytes, **fields)
    )


def acknowledged(seq):
    return Response(acknowledged=selection_pb2.ChunkAcknowledged(seq=seq))


def fill(stream, rows):
    """Send all that the stream allows; return the chunks."""
    sent = []
    while True:
        if (request := stream.next_request()) is not None:
            sent.append(request.chunk)
        elif stream.wants_row:
            stream.add(next(rows))
        else:
            return sent


@pytest.mark.parametrize("point", POINTS)
def test_a_broken_stream_resumes_after_the_last_acknowledged_chunk(point):
    server = StreamServer([point], max_chunk_bytes=CHUNK, pick_count=5)
    stream, rows = new_stream(), iter(POOL)
    with pytest.raises(BrokenError):
        converse(stream, server, rows)
    result = converse(stream, server, rows)
    assert result.selection == "s-1"
    assert result.ids == tuple(f"image-{rank}" for rank in range(1, 6))
    assert server.rows == POOL
    assert server.starts[0] == server.starts[1]
    # Only a chunk that was received but not committed is sent again.
    again = [point[1]] if point[0] == "received" else []
    assert sorted(server.sent) == sorted([*range(CHUNKS), *again])


@pytest.mark.parametrize("had", range(CHUNKS + 1))
def test_a_new_process_sends_only_the_chunks_that_the_server_lacks(had):
    first = StreamServer(max_chunk_bytes=CHUNK)
    converse(new_stream(), first, iter(POOL))
    second = StreamServer(max_chunk_bytes=CHUNK)
    second.chunks = first.chunks[:had]
    result = converse(new_stream(), second, iter(POOL))
    assert second.sent == list(range(had, CHUNKS))
    assert second.rows == POOL
    assert result.accounts.read == len(POOL)


def test_a_pool_with_fewer_chunks_than_the_server_has_is_refused():
    server = StreamServer(max_chunk_bytes=CHUNK)
    server.chunks = [selection_pb2.PoolChunk()] * 5
    with pytest.raises(topb.InvalidRequestError, match="already has 5") as caught:
        converse(new_stream(), server, iter(POOL))
    assert caught.value.reason == "POOL_CHANGED"


def test_a_server_that_lost_an_acknowledged_chunk_is_an_error():
    server = StreamServer([("received", 2)], max_chunk_bytes=CHUNK, window=1)
    stream, rows = new_stream(), iter(POOL)
    with pytest.raises(BrokenError):
        converse(stream, server, rows)
    server.chunks = []
    with pytest.raises(topb.ProtocolError, match="lost chunk 0") as caught:
        converse(stream, server, rows)
    assert caught.value.reason == "ACKNOWLEDGED_CHUNK_LOST"


def test_at_most_one_window_of_chunks_is_unacknowledged_and_one_more_is_held():
    window, rows_a_chunk, taken = 3, 9, 0

    def pool():
        nonlocal taken
        for row in itertools.count():
            taken += 1
            yield f"{row:03}", b"x" * 100

    rows, stream = pool(), new_stream()
    stream.start()
    assert not stream.wants_row
    stream.receive(accepted(window))
    unacknowledged, sent = [], 0
    for which in (0, -1, 1, 0, 0):
        chunks = fill(stream, rows)
        sent += len(chunks)
        unacknowledged += chunks
        assert len(unacknowledged) == window
        assert {len(chunk.ids) for chunk in chunks} == {rows_a_chunk}
        # One more chunk is in hand, and the row that completed it.
        assert taken == (sent + 1) * rows_a_chunk + 1
        stream.receive(acknowledged(unacknowledged.pop(which).seq))


def test_progress_counts_acknowledged_chunks():
    stream = new_stream()
    stream.start()
    stream.receive(accepted())
    fill(stream, iter(POOL * 10))
    assert stream.reached == 0
    stream.receive(acknowledged(1))
    assert stream.reached == 2
    stream.receive(acknowledged(0))
    assert stream.reached == 2


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([accepted(), accepted()], "accepted the stream twice"),
        ([accepted(window=0)], "at least one of each"),
        ([accepted(max_chunk_bytes=0)], "at least one of each"),
        ([accepted(), acknowledged(0)], "acknowledged chunk 0, which was not sent"),
        ([accepted(complete=True)], "without a result"),
    ],
)
def test_an_event_out_of_order_is_a_protocol_error(events, said):
    def serve(requests, _context):
        next(requests)
        return events

    with pytest.raises(topb.ProtocolError, match=said):
        converse(new_stream(), serve, iter(POOL))


def test_rows_that_are_not_accounted_for_are_a_protocol_error():
    with pytest.raises(topb.ProtocolError, match=r"14 rows.*for 13"):
        converse(new_stream(), StreamServer(lost_rows=1), iter(POOL))


def test_an_empty_pool_sends_no_chunk():
    server = StreamServer()
    assert converse(new_stream(), server, iter([])).picks == ()
    assert server.chunks == []
    assert server.end == selection_pb2.StreamEnd(chunks=0)
