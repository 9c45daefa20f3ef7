"""The caller's side of SelectBatchFromStream, without the network: what to send, and what came back."""

from __future__ import annotations

from collections import deque

from topb._chunking import Chunker
from topb._collecting import ProgressCallback, ResultCollector
from topb.errors import InvalidRequestError, ProtocolError
from topb.results import SelectionResult
from topb.v1 import selection_pb2

Request = selection_pb2.SelectBatchFromStreamRequest
Response = selection_pb2.SelectBatchFromStreamResponse


class PoolStream:
    """The state of one streamed selection, over as many connections as it takes.

    Whoever drives it sends `start()` on each connection. Until `all_sent` it then sends what `next_request`
    gives; where that is None it adds a row if it `wants_row`, and else waits for an event. It feeds each
    event to `receive`, and asks for the `result` once the server has ended the connection well.

    At most a window of chunks and one more are held: those that the server has not acknowledged.
    """

    def __init__(
        self, spec: selection_pb2.SelectionSpec, request_id: str, progress: ProgressCallback | None
    ) -> None:
        self._start = selection_pb2.StreamStart(spec=spec, request_id=request_id)
        self._collector = ResultCollector(progress)
        self._chunker: Chunker | None = None
        self._unacknowledged: dict[int, Request] = {}
        self._rows_ended = False
        self._reached = 0
        self._accepted = self._complete = self._end_sent = False
        self._window = self._next_seq = 0
        self._to_send: deque[int] = deque()
        self._under_way: set[int] = set()

    @property
    def wants_row(self) -> bool:
        """Whether a row of the pool is to be added, or the pool to be closed where there is none."""
        return self._accepted and not (self._complete or self._rows_ended or self._to_send)

    @property
    def all_sent(self) -> bool:
        """Whether nothing is to be sent on this connection any more."""
        return self._complete or self._end_sent

    @property
    def reached(self) -> int:
        """How many chunks the server has, as far as is known; never falls."""
        return self._reached

    def start(self) -> Request:
        """The first request of a new connection; what was under way on the one before counts as lost."""
        self._collector.begin()
        self._accepted = self._complete = self._end_sent = False
        self._window = self._next_seq = 0
        self._to_send.clear()
        self._under_way.clear()
        return Request(start=self._start)

    def add(self, row: object) -> None:
        """Takes the next row of the pool."""
        self._hold(self._open_chunker().add(row))

    def close(self) -> None:
        """Notes that the pool has no more rows.

        Raises:
            InvalidRequestError: the server has more chunks than the pool gave: it is another pool.
        """
        chunker = self._open_chunker()
        self._hold(chunker.close())
        self._rows_ended = True
        if chunker.chunks < self._next_seq:
            raise InvalidRequestError(
                f"the pool makes {chunker.chunks} chunks, and the server has {self._next_seq} of request "
                f"{self._start.request_id}: go on with the pool that it was begun with, or under another "
                "request_id",
                reason="POOL_CHANGED",
            )

    def next_request(self) -> Request | None:
        """What is to be sent now, a chunk or the end; None: a row or an event has to come first."""
        if self._to_send:
            if len(self._under_way) >= self._window:
                return None
            seq = self._to_send.popleft()
            self._under_way.add(seq)
            return self._unacknowledged[seq]
        if self._accepted and self._rows_ended and not self.all_sent:
            self._end_sent = True
            return Request(end=selection_pb2.StreamEnd(chunks=self._open_chunker().chunks))
        return None

    def receive(self, response: Response) -> None:
        """Takes the server's next event.

        Raises:
            ProtocolError: the event makes no sense where it stands.
        """
        match response.WhichOneof("event"):
            case "accepted":
                self._receive_accepted(response.accepted)
            case "acknowledged":
                self._receive_acknowledged(response.acknowledged.seq)
            case _:
                self._collector.receive(response)

    def result(self) -> SelectionResult:
        """The result, once the server ended the stream well.

        Raises:
            ProtocolError: the stream was cut short, or not all rows of the pool are accounted for.
        """
        if not self.all_sent:
            raise ProtocolError(
                "the server ended the stream before it had the whole pool", reason="RESULT_INCOMPLETE"
            )
        result = self._collector.result()
        # Where the server had the whole pool before this caller came, nobody here knows its rows.
        rows = self._open_chunker().rows
        if self._rows_ended and result.accounts.read != rows:
            raise ProtocolError(
                f"the pool has {rows} rows and the server accounts for {result.accounts.read}",
                reason="ACCOUNTS_DO_NOT_ADD_UP",
            )
        return result

    def _receive_accepted(self, accepted: selection_pb2.StreamAccepted) -> None:
        if self._accepted:
            raise ProtocolError("the server accepted the stream twice", reason="UNEXPECTED_EVENT")
        if accepted.window < 1 or accepted.max_chunk_bytes < 1:
            raise ProtocolError(
                f"the server takes {accepted.window} chunks of {accepted.max_chunk_bytes} bytes at a time: "
                "nothing could ever be sent",
                reason="UNEXPECTED_EVENT",
            )
        if self._chunker is None:
            self._chunker = Chunker(max_chunk_bytes=accepted.max_chunk_bytes)
        self._collector.selection = accepted.selection
        self._accepted, self._complete = True, accepted.complete
        self._window, self._next_seq = accepted.window, accepted.next_seq
        self._reached = max(self._reached, accepted.next_seq)
        if accepted.complete:
            return
        for seq in range(accepted.next_seq, self._chunker.chunks):
            if seq not in self._unacknowledged:
                raise ProtocolError(
                    f"the server acknowledged chunk {seq} and has lost it: does its state outlive it "
                    "(topb serve --state DIR)? Select again, under another request_id",
                    reason="ACKNOWLEDGED_CHUNK_LOST",
                )
        self._unacknowledged = {
            seq: chunk for seq, chunk in sorted(self._unacknowledged.items()) if seq >= accepted.next_seq
        }
        self._to_send.extend(self._unacknowledged)

    def _receive_acknowledged(self, seq: int) -> None:
        if seq not in self._under_way:
            raise ProtocolError(
                f"the server acknowledged chunk {seq}, which is not under way", reason="UNEXPECTED_EVENT"
            )
        self._under_way.remove(seq)
        del self._unacknowledged[seq]
        self._reached = max(self._reached, seq + 1)

    def _hold(self, chunk: Request | None) -> None:
        """Keeps a chunk that was closed until it is acknowledged, unless the server has it already."""
        if chunk is not None and chunk.chunk.seq >= self._next_seq:
            self._unacknowledged[chunk.chunk.seq] = chunk
            self._to_send.append(chunk.chunk.seq)

    def _open_chunker(self) -> Chunker:
        if self._chunker is None:
            raise ProtocolError("the stream was not accepted", reason="UNEXPECTED_EVENT")
        return self._chunker
