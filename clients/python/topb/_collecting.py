"""From the events of a selection, as they arrive, to its result."""

from __future__ import annotations

from collections.abc import Callable

from topb import _translate
from topb.errors import ProtocolError
from topb.progress import Progress
from topb.results import Pick, SelectionResult
from topb.v1 import selection_pb2

ProgressCallback = Callable[[Progress], None]

Event = selection_pb2.SelectBatchResponse | selection_pb2.SelectBatchFromStreamResponse


class ResultCollector:
    """Takes progress, one summary and the pages of picks; knows whether they make a whole result."""

    def __init__(self, progress: ProgressCallback | None) -> None:
        """Args: progress: called with each progress event, on the thread that calls `receive`."""
        self._progress = progress
        self._summary: selection_pb2.SelectionSummary | None = None
        self._picks: list[Pick] = []

    def receive(self, event: Event) -> None:
        """Takes the next event of the server; one that this version does not know is passed over.

        Raises:
            ProtocolError: the event makes no sense where it stands.
        """
        match event.WhichOneof("event"):
            case "progress":
                if self._progress is not None:
                    self._progress(_translate.progress(event.progress))
            case "summary":
                if self._summary is not None:
                    raise ProtocolError("the server sent a second summary", reason="UNEXPECTED_EVENT")
                self._summary = event.summary
            case "picks":
                self._receive_picks(event.picks)

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
        )

    def _receive_picks(self, page: selection_pb2.PickPage) -> None:
        if self._summary is None:
            raise ProtocolError("the server sent picks before the summary", reason="UNEXPECTED_EVENT")
        for message in page.picks:
            if message.rank != len(self._picks) + 1:
                raise ProtocolError(
                    f"the server sent rank {message.rank} where rank {len(self._picks) + 1} belongs",
                    reason="UNEXPECTED_EVENT",
                )
            self._picks.append(_translate.pick(message))
