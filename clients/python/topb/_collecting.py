"""Collect the events of a selection into its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from topb import _translate
from topb.errors import ProtocolError
from topb.progress import Progress
from topb.results import Pick, SelectionResult
from topb.v1 import selection_pb2

ProgressCallback = Callable[[Progress], None]

Event = selection_pb2.SelectBatchResponse | selection_pb2.SelectBatchFromStreamResponse


class ResultCollector:
    """Collects progress, one summary and pages of picks, and checks that the result is complete.

    Attributes:
        selection: Id of the selection, or empty while it is unknown.
        pool: URI of the pool, or empty if the caller sends it.
        request_id: The caller's id of the request.
        rows_read: Largest number of rows that the server has reported as read.
    """

    def __init__(
        self,
        progress: ProgressCallback | None,
        *,
        pool: str = "",
        request_id: str = "",
        total: int = 0,
    ) -> None:
        """Create a collector.

        Args:
            progress: Called with each progress.
            pool: URI of the pool, or empty if the caller sends it.
            request_id: The caller's id of the request.
            total: Number of rows in the pool if the caller knows it; 0 if only the server may.
        """
        self.selection = ""
        self.pool = pool
        self.request_id = request_id
        self._total = total
        self.rows_read = 0
        self._progress = progress
        self._summary: selection_pb2.SelectionSummary | None = None
        self._picks: list[Pick] = []

    def begin(self) -> None:
        """Prepare for a new answer, and discard a partial one from an earlier connection."""
        self._summary = None
        self._picks = []

    def receive(self, event: Event) -> None:
        """Process the server's next event. Events that this version does not know are ignored.

        Raises:
            ProtocolError: If the protocol does not allow the event at this point.
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
        """Report progress to the caller.

        A server that takes over from another may report fewer rows at first. Such reports are dropped, unless
        they say at which place of a queue the selection waits.
        """
        if message.read < self.rows_read and not message.HasField("queue"):
            return
        self.rows_read = max(self.rows_read, message.read)
        if self._progress is not None:
            progress = _translate.progress(message)
            self._progress(dataclasses.replace(progress, total=progress.total or self._total))

    def receive_summary(self, summary: selection_pb2.SelectionSummary) -> None:
        """Add the summary.

        Raises:
            ProtocolError: If there was a summary before.
        """
        if self._summary is not None:
            raise ProtocolError("the server sent a second summary", reason="UNEXPECTED_EVENT")
        self._summary = summary

    def receive_picks(self, picks: Iterable[selection_pb2.Pick]) -> None:
        """Add a page of picks.

        Raises:
            ProtocolError: If it comes before the summary, or its ranks are not consecutive.
        """
        if self._summary is None:
            raise ProtocolError("the server sent picks before the summary", reason="UNEXPECTED_EVENT")
        for message in picks:
            if message.rank != len(self._picks) + 1:
                raise ProtocolError(
                    f"the server sent rank {message.rank} instead of rank {len(self._picks) + 1}",
                    reason="UNEXPECTED_EVENT",
                )
            self._picks.append(_translate.pick(message))

    def result(self) -> SelectionResult:
        """Return the result, once the server has ended the call.

        Raises:
            ProtocolError: If the summary or a pick is missing, or the accounts do not add up.
        """
        if self._summary is None:
            raise ProtocolError("the server ended the stream without a result", reason="RESULT_INCOMPLETE")
        if len(self._picks) != self._summary.pick_count:
            raise ProtocolError(
                f"the server announced {self._summary.pick_count} picks but sent {len(self._picks)}",
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
            pool=self.pool,
            request_id=self.request_id,
        )
