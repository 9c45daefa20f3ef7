"""A hold on one selection that a server keeps, in an event loop."""

from __future__ import annotations

from topb import _translate
from topb._async_connection import AsyncConnection
from topb._collecting import ProgressCallback, ResultCollector
from topb._deadline import Deadline
from topb._selection_end import PICKS_A_PAGE, has_succeeded, poll_delays
from topb.progress import Progress
from topb.results import SelectionResult
from topb.selections import Selection, SelectionState
from topb.v1 import selection_pb2


class AsyncSelectionHandle:
    """One selection, by its id: how it stands, its result, and a way to stop it.

    Clients give it: `AsyncClient.submit` of a new selection, `AsyncClient.selection` of any. It can be
    used as long as its client is open. All calls are safe to repeat, and are where the server goes away.
    """

    __slots__ = ("_connection", "_id", "_request_id")

    def __init__(self, connection: AsyncConnection, id: str, request_id: str) -> None:
        self._connection = connection
        self._id = id
        self._request_id = request_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self._id!r}, request_id={self._request_id!r})"

    @property
    def id(self) -> str:
        """The server's name for the selection."""
        return self._id

    @property
    def request_id(self) -> str:
        """The caller's name for it: what it is repeated by."""
        return self._request_id

    async def describe(self, *, timeout: float | None = None) -> Selection:
        """The selection as it stands now."""
        return _translate.selection(await self._fetch(self._connection.deadline(timeout)))

    async def state(self, *, timeout: float | None = None) -> SelectionState:
        """Where it stands now."""
        return (await self.describe(timeout=timeout)).state

    async def progress(self, *, timeout: float | None = None) -> Progress:
        """How far it has come."""
        return (await self.describe(timeout=timeout)).progress

    async def result(
        self, timeout: float | None = None, *, progress: ProgressCallback | None = None
    ) -> SelectionResult:
        """The result, waited for; it can be fetched any number of times.

        Args:
            timeout: seconds to wait at most; None for the client's, `math.inf` for no deadline. The
                selection is not stopped when it is over.
            progress: called now and then while the selection runs.

        Raises:
            SelectionFailedError: the selection failed.
            RequestCancelledError: it was cancelled.
            DeadlineExceededError: it has not ended in time.
        """
        deadline = self._connection.deadline(timeout)
        collector = ResultCollector(progress)
        for delay in poll_delays():
            message = await self._fetch(deadline)
            if has_succeeded(message):
                break
            collector.receive_progress(message.progress)
            await self._connection.wait(deadline.shortened(delay))
        collector.selection = message.id
        if message.HasField("summary"):
            collector.receive_summary(message.summary)
        token = ""
        while True:
            request = selection_pb2.ListPicksRequest(
                selection=message.id, page_size=PICKS_A_PAGE, page_token=token
            )
            page = await self._connection.call(
                self._connection.selections.ListPicks, request, deadline, repeatable=True
            )
            collector.receive_picks(page.picks)
            token = page.next_page_token
            if not token:
                return collector.result()

    async def cancel(self, *, timeout: float | None = None) -> Selection:
        """Stops it, unless it has ended, and gives how it stands. It stops within one batch."""
        response = await self._connection.call(
            self._connection.selections.CancelSelection,
            selection_pb2.CancelSelectionRequest(selection=self._id),
            self._connection.deadline(timeout),
            repeatable=True,
        )
        return _translate.selection(response.selection)

    async def _fetch(self, deadline: Deadline) -> selection_pb2.Selection:
        request = selection_pb2.GetSelectionRequest(selection=self._id)
        method = self._connection.selections.GetSelection
        response = await self._connection.call(method, request, deadline, repeatable=True)
        return response.selection
