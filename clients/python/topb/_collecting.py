"""From the events of a selection, as they arrive, to its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from topb import _translate
from topb.errors import ProtocolError
from topb.progress import Progress
from topb.results import Pick, SelectionResult
from topb.v1 import selection_pb2

ProgressCallback = Callable[[Progress], None]

Event = selection_pb2.SelectBatchResponse | selection_pb2.SelectBatchFromStreamResponse


class ResultCollector:
    """Takes progress, one summary and the pages of picks; knows whether they make a whole result.

    Attributes:
        selection: id of the selection, once it is known.
        rows_read: how many rows of the pool the server said it had read, at most.
    """

    def __init__(self, progress: ProgressCallback | None) -> None:
        """Args: progress: called with each progress event, on the thread that calls `receive`."""
        self.selection = ""
        self.rows_read = 0
        self._progress = progress
        self._summary: selection_pb2.SelectionSummary | None = None
        self._picks: list[Pick] = []

    def begin(self) -> None:
        """Notes that the answer comes from its start: now, or again on another connection."""
        self._summary = None
        self._picks = []

    def receive(self, event: Event) -> None:
        """Takes the next event of the server; one that this version does not know is passed over.

        Raises:
            ProtocolError: the event makes no sense where it stands.
        """
        match event.WhichOneof("event"):
            case "started" if isinstance(event, selection_pb2.SelectBatchResponse):
                self.selection = event.started.selection
            case "progress":
                self.receive_progress(event.progress)
            case "summary":
                self.receive_summary(event.summary)
            case "picks":
                self.receive_picks(event.picks.picks)

    def receive_progress(self, message: selection_pb2.SelectionProgress) -> None:
        """Takes how far the selection has come.

        A server that takes over from another counts from further back: the caller hears of it once it is
        as far as before.
        """
        if message.read < self.rows_read:
            return
        self.rows_read = message.read
        if self._progress is not None:
            self._progress(_translate.progress(message))

    def receive_summary(self, summary: selection_pb2.SelectionSummary) -> None:
        """Takes the summary.

        Raises:
            ProtocolError: it is the second one.
        """
        if self._summary is not None:
            raise ProtocolError("the server sent a second summary", reason="UNEXPECTED_EVENT")
        self._summary = summary

    def receive_picks(self, picks: Iterable[selection_pb2.Pick]) -> None:
        """Takes a page of picks.

        Raises:
            ProtocolError: it came before the summary, or is out of order.
        """
        if self._summary is None:
            raise ProtocolError("the server sent picks before the summary", reason="UNEXPECTED_EVENT")
        for message in picks:
            if message.rank != len(self._picks) + 1:
                raise ProtocolError(
                    f"the server sent rank {message.rank} where rank {len(self._picks) + 1} belongs",
                    reason="UNEXPECTED_EVENT",
                )
            self._picks.append(_translate.pick(message))

    def result(self) -> SelectionResult:
        """The result, once the server ended the stream well.

        Raises:
            ProtocolError: the summary or some of the picks are missing, or the accounts do not add up.
        """
        if self._summary is None:
            raise ProtocolError("the server ended the stream without a result", reason="RESULT_INCOMPLETE")
        if len(self._picks) != self._summary.pick_count:
            raise ProtocolError(
                f"the server announced {self._summary.pick_count} picks and sent {len(self._picks)}",
                reason="RESULT_INCOMPLETE",
            )
        return SelectionResult(
            picks=tuple(self._picks),
            accounts=_translate.accounts(self._summary.accounts),
            model=self._summary.model,
            strategy=self._summary.strategy,
            seed=self._summary.seed,
            budget=self._summary.budget,
            elapsed_seconds=_translate.seconds(self._summary.elapsed),
            measures=dict(self._summary.measures),
            selection=self.selection,
        )
