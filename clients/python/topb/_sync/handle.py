# Generated from topb/_async/handle.py by clients/python/generate_sync.py. Edit that file instead.

"""A handle to one selection that a server keeps."""

from __future__ import annotations

from topb import _translate
from topb._collecting import ProgressCallback, ResultCollector
from topb._deadline import Deadline
from topb._selection_end import PICKS_A_PAGE, has_succeeded, poll_delays
from topb._sync.connection import Connection
from topb.progress import Progress
from topb.results import SelectionResult
from topb.selections import Selection, SelectionState
from topb.v1 import selection_pb2


class SelectionHandle:
    """One selection on the server: its state, its result, and a way to cancel it.

    `Client.submit` returns a handle to a new selection, and `Client.selection` a handle to an
    existing one. A handle works until its client is closed. If the server goes away, every method retries
    according to the client's `retry` policy.
    """

    __slots__ = ("_connection", "_id", "_request_id")

    def __init__(self, connection: Connection, id: str, request_id: str) -> None:
        self._connection = connection
        self._id = id
        self._request_id = request_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self._id!r}, request_id={self._request_id!r})"

    @property
    def id(self) -> str:
        """The id that the server gave the selection."""
        return self._id

    @property
    def request_id(self) -> str:
        """The caller's id of the request. Another request with this id returns the same selection."""
        return self._request_id

    def describe(self, *, timeout: float | None = None) -> Selection:
        """Return the selection as it is now."""
        return _translate.selection(self._fetch(self._connection.deadline(timeout)))

    def state(self, *, timeout: float | None = None) -> SelectionState:
        """Return the current state."""
        selection = self.describe(timeout=timeout)
        return selection.state

    def progress(self, *, timeout: float | None = None) -> Progress:
        """Return the current progress."""
        selection = self.describe(timeout=timeout)
        return selection.progress

    def result(
        self, timeout: float | None = None, *, progress: ProgressCallback | None = None
    ) -> SelectionResult:
        """Wait for the selection to end, and return its result.

        The result can be fetched any number of times.

        Args:
            timeout: Maximum number of seconds to wait; None for the client's timeout, `math.inf` for no
                limit. The selection continues after a timeout.
            progress: Called on the calling thread from time to time while the selection runs.

        Raises:
            SelectionFailedError: If the selection failed.
            RequestCancelledError: If the selection was cancelled.
            DeadlineExceededError: If the selection did not end in time.
        """
        deadline = self._connection.deadline(timeout)
        collector = ResultCollector(progress)
        for delay in poll_delays():
            message = self._fetch(deadline)
            if has_succeeded(message):
                break
            collector.receive_progress(message.progress)
            self._connection.wait(deadline.shortened(delay))
        collector.selection, collector.pool, collector.request_id = (
            message.id,
            message.pool_uri,
            message.request_id,
        )
        if message.HasField("summary"):
            collector.receive_summary(message.summary)
        token = ""
        while True:
            request = selection_pb2.ListPicksRequest(
                selection=message.id, page_size=PICKS_A_PAGE, page_token=token
            )
            page = self._connection.call(
                self._connection.selections.ListPicks, request, deadline, repeatable=True
            )
            collector.receive_picks(page.picks)
            token = page.next_page_token
            if not token:
                return collector.result()

    def cancel(self, *, timeout: float | None = None) -> Selection:
        """Cancel the selection for good, unless it has ended, and return it.

        The server stops working on it within one batch of images.
        """
        response = self._connection.call(
            self._connection.selections.CancelSelection,
            selection_pb2.CancelSelectionRequest(selection=self._id),
            self._connection.deadline(timeout),
            repeatable=True,
        )
        return _translate.selection(response.selection)

    def _fetch(self, deadline: Deadline) -> selection_pb2.Selection:
        request = selection_pb2.GetSelectionRequest(selection=self._id)
        method = self._connection.selections.GetSelection
        response = self._connection.call(method, request, deadline, repeatable=True)
        return response.selection
