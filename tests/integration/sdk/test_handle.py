"""Detached selections, by a client of either kind."""

from __future__ import annotations

import datetime

import grpc
import pytest

import topb
from support.scripted_server import MODEL, QUICK_RETRY, abort, duration, error_details, picks, summary
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk


class Catalog:
    """One selection, in the next state with each call, and its three picks in pages of two."""

    def __init__(self, server, *states, **fields):
        self.states = list(states)
        self.fields = fields
        self.asked = []
        server.select_batch = self.select_batch
        server.get_selection = self.get_selection
        server.cancel_selection = self.cancel_selection
        server.list_picks = self.list_picks

    def selection(self):
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        message = selection_pb2.Selection(
            id="s-1",
            request_id="r-1",
            state=f"SELECTION_STATE_{state}",
            model=MODEL,
            strategy="margin",
            budget=3,
            pool_uri="/p",
            progress=selection_pb2.SelectionProgress(read=40, total=100, elapsed=duration(2.5)),
            **self.fields,
        )
        message.create_time.FromJsonString("2025-03-04T05:06:07Z")
        if state == "SUCCEEDED":
            message.end_time.FromJsonString("2025-03-04T05:16:07Z")
            message.summary.CopyFrom(summary(3))
        return message

    def select_batch(self, request, context):
        self.asked.append(request)
        yield selection_pb2.SelectBatchResponse(started=selection_pb2.SelectionStarted(selection="s-1"))
        while context.is_active():
            yield selection_pb2.SelectBatchResponse(progress=selection_pb2.SelectionProgress())

    def get_selection(self, request, context):
        self.asked.append(request)
        if request.selection not in ("s-1", "r-1"):
            details = error_details("SELECTION_NOT_FOUND")
            abort(context, grpc.StatusCode.NOT_FOUND, "there is no such selection", details)
        return selection_pb2.GetSelectionResponse(selection=self.selection())

    def cancel_selection(self, request, _context):
        self.asked.append(request)
        return selection_pb2.CancelSelectionResponse(selection=self.selection())

    def list_picks(self, request, _context):
        self.asked.append(request)
        first = int(request.page_token or 0)
        return selection_pb2.ListPicksResponse(
            picks=picks(3)[first : first + 2], next_page_token="2" if first == 0 else ""
        )


def test_the_result_of_a_submitted_selection_is_fetched_later(server, new_client):
    catalog = Catalog(server, "PENDING", "RUNNING", "SUCCEEDED")
    seen = []
    with new_client(server.address) as client:
        handle = client.submit(topb.Pool("/p", id_column="key"), 3, strategy="margin", request_id="r-1")
        result = handle.result(timeout=30, progress=seen.append)
        assert handle.result() == result
        assert (handle.id, handle.request_id) == ("s-1", "r-1")
    assert catalog.asked[0] == selection_pb2.SelectBatchRequest(
        spec=selection_pb2.SelectionSpec(budget=3, strategy="margin"),
        pool=selection_pb2.Pool(uri="/p", id_column="key"),
        request_id="r-1",
        detached=True,
    )
    assert result.ids == ("image-1", "image-2", "image-3")
    assert result.selection == "s-1"
    assert result.accounts == topb.Accounts(read=100, scored=100)
    assert seen == [topb.Progress(40, 100, 2.5)] * 2


def test_a_selection_is_found_by_either_id_and_described(server, new_client):
    Catalog(server, "SUCCEEDED")
    with new_client(server.address) as client:
        assert client.selection("r-1").id == "s-1"
        handle = client.selection("s-1")
        assert handle.state() is topb.SelectionState.SUCCEEDED
        assert handle.progress() == topb.Progress(40, 100, 2.5)
        described = handle.describe()
        with pytest.raises(topb.NotFoundError):
            client.selection("s-2")
    assert described == topb.Selection(
        id="s-1",
        request_id="r-1",
        state=topb.SelectionState.SUCCEEDED,
        model=MODEL,
        strategy="margin",
        budget=3,
        pool_uri="/p",
        progress=topb.Progress(40, 100, 2.5),
        create_time=datetime.datetime(2025, 3, 4, 5, 6, 7, tzinfo=datetime.UTC),
        update_time=None,
        end_time=datetime.datetime(2025, 3, 4, 5, 16, 7, tzinfo=datetime.UTC),
        pick_count=3,
        accounts=topb.Accounts(read=100, scored=100),
        error_reason="",
        error_message="",
    )
    assert described.to_dict()["create_time"] == "2025-03-04T05:06:07+00:00"


def test_a_failed_selection_raises_its_reason(server, new_client):
    Catalog(server, "FAILED", error_reason="POOL_UNREADABLE", error_message="row group 3 is torn")
    with (
        new_client(server.address) as client,
        pytest.raises(topb.SelectionFailedError, match="row group 3 is torn") as caught,
    ):
        client.selection("s-1").result()
    assert caught.value.reason == "POOL_UNREADABLE"


def test_the_result_of_a_cancelled_selection_raises_request_cancelled(server, new_client):
    catalog = Catalog(server, "RUNNING", "CANCELLED")
    with new_client(server.address) as client:
        handle = client.selection("s-1")
        assert handle.cancel().state is topb.SelectionState.CANCELLED
        with pytest.raises(topb.RequestCancelledError, match="was cancelled"):
            handle.result()
    assert catalog.asked[1] == selection_pb2.CancelSelectionRequest(selection="s-1")


def test_a_timeout_ends_the_wait_and_not_the_selection(server, new_client):
    catalog = Catalog(server, "RUNNING")
    with new_client(server.address) as client, pytest.raises(topb.DeadlineExceededError, match=r"0\.3 s"):
        client.selection("s-1").result(timeout=0.3)
    assert {type(request) for request in catalog.asked} == {selection_pb2.GetSelectionRequest}


def test_handles_retry_if_the_server_goes_away(server, new_client):
    catalog = Catalog(server, "SUCCEEDED")
    failures = iter(range(4))

    def flaky(answer):
        def serve(request, context):
            if next(failures, 1) % 2 == 0:
                abort(context, grpc.StatusCode.UNAVAILABLE, "going away")
            return answer(request, context)

        return serve

    server.get_selection, server.list_picks = flaky(catalog.get_selection), flaky(catalog.list_picks)
    with new_client(server.address, retry=QUICK_RETRY) as client:
        assert len(client.selection("s-1").result().picks) == 3


def test_a_submission_without_an_id_in_the_answer_is_a_protocol_error(server, new_client):
    server.select_batch = []
    with (
        new_client(server.address) as client,
        pytest.raises(topb.ProtocolError, match="the id of the new selection"),
    ):
        client.submit("/p", 3)


def test_selections_are_listed_page_by_page_as_needed(server, new_client):
    requests = []

    def serve(request, context):
        requests.append(selection_pb2.ListSelectionsRequest.FromString(request.SerializeToString()))
        first = int(request.page_token or 0)
        page = selection_pb2.ListSelectionsResponse(next_page_token=str(first + 2) if first < 4 else "")
        for number in range(first, min(first + 2, 5)):
            page.selections.add(id=f"s-{number}", state=selection_pb2.SELECTION_STATE_RUNNING)
        return page

    server.list_selections = serve
    with new_client(server.address) as client:
        listed = client.list_selections(states=[topb.SelectionState.RUNNING, "failed"], model="m")
        assert requests == []
        assert next(listed).id == "s-0"
        assert next(listed).id == "s-1"
        assert len(requests) == 1
        assert [selection.id for selection in listed] == ["s-2", "s-3", "s-4"]
    assert [request.page_token for request in requests] == ["", "2", "4"]
    assert list(requests[2].states) == [
        selection_pb2.SELECTION_STATE_RUNNING,
        selection_pb2.SELECTION_STATE_FAILED,
    ]
    assert requests[2].model == "m"


def test_a_handle_has_a_repr_and_is_read_only(server):
    Catalog(server, "RUNNING")
    with topb.Client(server.address) as client:
        handle = client.selection("s-1")
    assert repr(handle) == "SelectionHandle(id='s-1', request_id='r-1')"
    with pytest.raises(AttributeError):
        handle.id = "s-2"
