"""The client's side of SelectBatchFromStream, without I/O."""

from __future__ import annotations

from collections import deque

from topb._chunking import Chunker, sizes_of
from topb._collecting import ProgressCallback, ResultCollector
from topb._requests import NO_MODEL
from topb.errors import InvalidRequestError, ProtocolError
from topb.results import SelectionResult
from topb.v1 import selection_pb2

Request = selection_pb2.SelectBatchFromStreamRequest
Response = selection_pb2.SelectBatchFromStreamResponse


class PoolStream:
    """The state of one streamed selection, which may span several connections.

    Its driver sends `start()` on each connection. Until `all_sent`, it then sends what `next_request`
    returns; if that is None, it adds a row if the stream `wants_row`, and otherwise waits for an event. It
    passes every event to `receive`, and asks for the `result` when the server has ended the call.

    Only chunks that the server has not acknowledged are held: at most one window and one more.

    Attributes:
        reached: Number of chunks that the server is known to have. It never decreases.
    """

    def __init__(
        self,
        spec: selection_pb2.SelectionSpec,
        request_id: str,
        progress: ProgressCallback | None,
        *,
        total: int = 0,
    ) -> None:
        """Create a stream.

        Args:
            spec: What to select.
            request_id: The caller's id of the request.
            progress: Called with each progress.
            total: Number of rows in the pool, or 0 if it is unknown.
        """
        self._start = selection_pb2.StreamStart(spec=spec, request_id=request_id)
        self._collector = ResultCollector(progress, request_id=request_id, total=total)
        self._chunker: Chunker | None = None
        self._declared: list[object] = []
        self._unacknowledged: dict[int, Request] = {}
        self._rows_ended = False
        self.reached = 0
        self._accepted = self._complete = self._end_sent = False
        self._window = self._next_seq = 0
        self._to_send: deque[int] = deque()
        self._under_way: set[int] = set()

    @property
    def declares_sizes(self) -> bool:
        """Whether to call `declare` with the first row before the first connection, if there is a row."""
        return self._start.spec.model == NO_MODEL

    def declare(self, row: object | None) -> None:
        """Take the first row of the pool, None if it has none, and declare its sizes to the server.

        Raises:
            InvalidRequestError: If the row is invalid.
        """
        if row is None:
            self._start.vectors.width = 0
            self._start.vectors.SetInParent()
            return
        sizes = sizes_of(row)
        if sizes is not None:
            self._start.vectors.width, self._start.vectors.classes = sizes.width, sizes.classes
        self._declared.append(row)

    @property
    def wants_row(self) -> bool:
        """Whether to call `add` with the next row, or `close` if there are no more rows."""
        return self._accepted and not (self._complete or self._rows_ended or self._to_send)

    @property
    def has_chunk(self) -> bool:
        """Whether there is a chunk, or the end of the pool, that the server may lack."""
        return bool(self._unacknowledged) or self._rows_ended

    @property
    def all_sent(self) -> bool:
        """Whether there is nothing more to send on this connection."""
        return self._complete or self._end_sent

    def start(self) -> Request:
        """Return the first request of a new connection. Unacknowledged chunks will be sent again."""
        self._collector.begin()
        self._accepted = self._complete = self._end_sent = False
        self._window = self._next_seq = 0
        self._to_send.clear()
        self._under_way.clear()
        return Request(start=self._start)

    def add(self, row: object) -> None:
        """Add the next row of the pool."""
        self._hold(self._open_chunker().add(row))

    def close(self) -> None:
        """Mark the end of the pool.

        Raises:
            InvalidRequestError: If the server has more chunks than this pool, which shows that the pools
                differ.
        """
        chunker = self._open_chunker()
        self._hold(chunker.close())
        self._rows_ended = True
        if chunker.chunks < self._next_seq:
            raise InvalidRequestError(
                f"the pool has {chunker.chunks} chunks, but the server already has {self._next_seq} for "
                f"request {self._start.request_id}; continue with the pool that the request began with, or "
                "use another request_id",
                reason="POOL_CHANGED",
            )

    def next_request(self) -> Request | None:
        """Return the chunk or the end to send now, or None if a row or an event is needed first."""
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
        """Process the server's next event.

        Raises:
            ProtocolError: If the protocol does not allow the event at this point.
        """
        match response.WhichOneof("event"):
            case "accepted":
                self._receive_accepted(response.accepted)
            case "acknowledged":
                self._receive_acknowledged(response.acknowledged.seq)
            case _:
                self._collector.receive(response)

    def result(self) -> SelectionResult:
        """Return the result, once the server has ended the call.

        Raises:
            ProtocolError: If the result is incomplete, or does not account for every row of the pool.
        """
        result = self._collector.result()
        # If the server had the whole pool before this call, the number of rows is unknown here.
        rows = self._open_chunker().rows
        if self._rows_ended and result.accounts.read != rows:
            raise ProtocolError(
                f"the pool has {rows} rows, but the server accounts for {result.accounts.read}",
                reason="ACCOUNTS_DO_NOT_ADD_UP",
            )
        return result

    def _receive_accepted(self, accepted: selection_pb2.StreamAccepted) -> None:
        if self._accepted:
            raise ProtocolError("the server accepted the stream twice", reason="UNEXPECTED_EVENT")
        if accepted.window < 1 or accepted.max_chunk_bytes < 1:
            raise ProtocolError(
                f"the server accepts {accepted.window} chunks of {accepted.max_chunk_bytes} bytes at a time; "
                "expected at least one of each",
                reason="UNEXPECTED_EVENT",
            )
        if self._chunker is None:
            self._chunker = Chunker(
                max_chunk_bytes=accepted.max_chunk_bytes,
                max_chunk_rows=accepted.max_chunk_rows,
                max_id_bytes=accepted.max_id_bytes,
            )
            for row in self._declared:
                self._chunker.add(row)
            self._declared.clear()
        self._collector.selection = accepted.selection
        self._accepted, self._complete = True, accepted.complete
        self._window, self._next_seq = accepted.window, accepted.next_seq
        self.reached = max(self.reached, accepted.next_seq)
        if accepted.complete:
            return
        for seq in range(accepted.next_seq, self._chunker.chunks):
            if seq not in self._unacknowledged:
                raise ProtocolError(
                    f"the server has lost chunk {seq}, which it had acknowledged. Start the server with "
                    "--state DIR to keep its state, and select again with another request_id",
                    reason="ACKNOWLEDGED_CHUNK_LOST",
                )
        self._unacknowledged = {
            seq: chunk for seq, chunk in sorted(self._unacknowledged.items()) if seq >= accepted.next_seq
        }
        self._to_send.extend(self._unacknowledged)

    def _receive_acknowledged(self, seq: int) -> None:
        if seq not in self._under_way:
            raise ProtocolError(
                f"the server acknowledged chunk {seq}, which was not sent", reason="UNEXPECTED_EVENT"
            )
        self._under_way.remove(seq)
        del self._unacknowledged[seq]
        self.reached = max(self.reached, seq + 1)

    def _hold(self, chunk: Request | None) -> None:
        """Keep a complete chunk until it is acknowledged, unless the server already has it."""
        if chunk is not None and chunk.chunk.seq >= self._next_seq:
            self._unacknowledged[chunk.chunk.seq] = chunk
            self._to_send.append(chunk.chunk.seq)

    def _open_chunker(self) -> Chunker:
        if self._chunker is None:
            raise ProtocolError("the server did not accept the stream", reason="UNEXPECTED_EVENT")
        return self._chunker
