"""The caller's side of SelectBatchFromStream, without the network: what may be sent, and what came back."""

from __future__ import annotations

from topb._chunking import Chunker
from topb._collecting import ProgressCallback, ResultCollector
from topb.errors import ProtocolError
from topb.results import SelectionResult
from topb.v1 import selection_pb2

Request = selection_pb2.SelectBatchFromStreamRequest
Response = selection_pb2.SelectBatchFromStreamResponse


class PoolStream:
    """The state of one streamed selection: chunks under way, and the result as it comes.

    Whoever drives it sends `start()`, feeds `receive` until `accepted`, then sends what `add` and
    `finish` give, each chunk only while `may_send`, and asks for the `result` at the end.
    """

    def __init__(self, spec: selection_pb2.SelectionSpec, progress: ProgressCallback | None) -> None:
        self._spec = spec
        self._collector = ResultCollector(progress)
        self._chunker: Chunker | None = None
        self._window = 0
        self._unacknowledged: set[int] = set()
        self._finished = False

    @property
    def accepted(self) -> bool:
        """Whether the server accepted the selection, so that rows may be added."""
        return self._chunker is not None

    @property
    def may_send(self) -> bool:
        """Whether one more chunk may be under way."""
        return len(self._unacknowledged) < self._window

    def start(self) -> Request:
        """The first request."""
        return Request(start=selection_pb2.StreamStart(spec=self._spec))

    def add(self, row: object) -> Request | None:
        """Takes a row of the pool; the chunk that is to be sent now, or None."""
        return self._open_chunker().add(row)

    def close_chunk(self) -> Request | None:
        """The last chunk, or None where the pool held no row."""
        return self._open_chunker().close()

    def sent(self, chunk: Request) -> None:
        """Notes that a chunk is under way."""
        self._unacknowledged.add(chunk.chunk.seq)

    def finish(self) -> Request:
        """The last request: the pool is complete."""
        self._finished = True
        return Request(end=selection_pb2.StreamEnd(chunks=self._open_chunker().chunks))

    def receive(self, response: Response) -> None:
        """Takes the server's next event.

        Raises:
            ProtocolError: the event makes no sense where it stands.
        """
        match response.WhichOneof("event"):
            case "accepted":
                self._receive_accepted(response.accepted)
            case "acknowledged":
                if response.acknowledged.seq not in self._unacknowledged:
                    raise ProtocolError(
                        f"the server acknowledged chunk {response.acknowledged.seq}, which is not under way",
                        reason="UNEXPECTED_EVENT",
                    )
                self._unacknowledged.remove(response.acknowledged.seq)
            case _:
                self._collector.receive(response)

    def result(self) -> SelectionResult:
        """The result, once the server ended the stream well.

        Raises:
            ProtocolError: the stream was cut short, or not all rows that were sent are accounted for.
        """
        if not self._finished:
            raise ProtocolError(
                "the server ended the stream before it had the whole pool", reason="RESULT_INCOMPLETE"
            )
        result = self._collector.result()
        rows = self._open_chunker().rows
        if result.accounts.read != rows:
            raise ProtocolError(
                f"{rows} rows were sent and the server accounts for {result.accounts.read}",
                reason="ACCOUNTS_DO_NOT_ADD_UP",
            )
        return result

    def _receive_accepted(self, accepted: selection_pb2.StreamAccepted) -> None:
        if self._chunker is not None:
            raise ProtocolError("the server accepted the stream twice", reason="UNEXPECTED_EVENT")
        if accepted.window < 1 or accepted.max_chunk_bytes < 1:
            raise ProtocolError(
                f"the server takes {accepted.window} chunks of {accepted.max_chunk_bytes} bytes at a time: "
                "nothing could ever be sent",
                reason="UNEXPECTED_EVENT",
            )
        self._window = accepted.window
        self._chunker = Chunker(max_chunk_bytes=accepted.max_chunk_bytes)

    def _open_chunker(self) -> Chunker:
        if self._chunker is None:
            raise ProtocolError("the stream was not accepted", reason="UNEXPECTED_EVENT")
        return self._chunker
