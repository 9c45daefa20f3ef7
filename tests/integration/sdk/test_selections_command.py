from __future__ import annotations

import csv
import json

import grpc
import pytest

from support.command_line import Outcome, topb
from topb.v1 import model_pb2, selection_pb2

pytestmark = pytest.mark.sdk


@pytest.fixture
def catalog(server, script, model_message):
    """Script a server with three selections, each in another state; return the requests that it gets."""
    requests = []
    messages = []
    for number, state in enumerate(("RUNNING", "SUCCEEDED", "FAILED")):
        message = selection_pb2.Selection(
            id=f"s-{number}",
            request_id=f"r-{number}",
            state=f"SELECTION_STATE_{state}",
            model=script.MODEL,
            strategy="margin",
            budget=2500,
            pool_uri="/pools/" + "a" * 60 if number == 0 else "",
            progress=selection_pb2.SelectionProgress(read=1200, total=5000, elapsed=script.duration(2.5)),
        )
        message.create_time.FromJsonString("2025-03-04T05:06:07Z")
        messages.append(message)
    messages[1].summary.CopyFrom(script.summary(3))
    messages[1].end_time.FromJsonString("2025-03-04T05:16:07Z")
    messages[2].error_reason, messages[2].error_message = "POOL_UNREADABLE", "row group 3 is torn"

    def found(request, context):
        requests.append(request)
        for message in messages:
            if request.selection in (message.id, message.request_id):
                return message
        details = script.error_details("SELECTION_NOT_FOUND")
        return script.abort(context, grpc.StatusCode.NOT_FOUND, "there is no selection x", details)

    def cancel(request, context):
        message = found(request, context)
        message.state = selection_pb2.SELECTION_STATE_CANCELLED
        return selection_pb2.CancelSelectionResponse(selection=message)

    def listed(request, _context):
        requests.append(request)
        return selection_pb2.ListSelectionsResponse(selections=messages)

    server.list_selections = listed
    server.get_selection = lambda request, context: selection_pb2.GetSelectionResponse(
        selection=found(request, context)
    )
    server.cancel_selection = cancel
    server.list_picks = lambda _request, _context: selection_pb2.ListPicksResponse(picks=script.picks(3))
    server.get_model = lambda _request, _context: model_pb2.GetModelResponse(model=model_message)
    return requests


def topb_selections(server, action, *arguments):
    return topb("selections", action, *arguments, "--server", server.address)


def test_selections_are_listed_in_a_table(server, catalog, script):
    listed = topb_selections(server, "list", "--state", "running", "--state", "failed", "--model", "m")
    pool = "…" + "a" * 39
    assert listed.out.splitlines() == [
        "selection  state      strategy  model             budget   read  created           pool",
        f"s-0        running    margin    {script.MODEL}   2,500  1,200  2025-03-04 05:06  {pool}",
        f"s-1        succeeded  margin    {script.MODEL}   2,500  1,200  2025-03-04 05:06  (sent)",
        f"s-2        failed     margin    {script.MODEL}   2,500  1,200  2025-03-04 05:06  (sent)",
    ]
    assert catalog[0].model == "m"
    assert len(catalog[0].states) == 2


def test_a_list_of_selections_says_that_it_was_cut(server, catalog):
    shown = topb_selections(server, "list", "--limit", 2).printed
    assert shown.endswith("\n… and more: --limit shows more than 2.\n")


def test_an_empty_list_of_selections_is_reported(server, catalog):
    server.list_selections = lambda _request, _context: selection_pb2.ListSelectionsResponse()
    assert topb_selections(server, "list").printed == "No selections.\n"


def test_selections_are_listed_as_json(server, catalog):
    listed = json.loads(topb_selections(server, "list", "--json").printed)
    assert [selection["state"] for selection in listed] == ["running", "succeeded", "failed"]
    assert listed[1]["accounts"]["read"] == 100
    assert listed[0]["progress"] == {"read": 1200, "total": 5000, "elapsed_seconds": 2.5, "queue": None}


def test_the_place_of_a_selection_that_waits_is_shown(server, catalog):
    waiting = selection_pb2.Selection(id="s-9", state="SELECTION_STATE_PENDING")
    waiting.progress.queue.position, waiting.progress.queue.length = 3, 12
    server.list_selections = lambda _request, _context: selection_pb2.ListSelectionsResponse(
        selections=[waiting]
    )
    server.get_selection = lambda _request, _context: selection_pb2.GetSelectionResponse(selection=waiting)
    assert topb_selections(server, "list").out.splitlines()[1].startswith("s-9        pending 3/12 ")
    shown = topb_selections(server, "show", "s-9").printed
    assert shown.startswith("selection s-9: pending, place 3 of 12 in the queue\n")
    listed = json.loads(topb_selections(server, "list", "--json").printed)
    assert listed[0]["progress"]["queue"] == {"position": 3, "length": 12}


def test_show_prints_one_selection(server, catalog, script):
    assert topb_selections(server, "show", "r-1").printed.splitlines() == [
        "selection s-1: succeeded",
        "  request     r-1",
        f"  what        2,500 by margin with model {script.MODEL}",
        "  pool        sent by its caller",
        "  read        1,200 of 5,000 in 2.5 s",
        "  created     2025-03-04 05:06",
        "  ended       2025-03-04 05:16",
        "  picks       3",
        "Of 100 rows read: 100 scored.",
    ]
    shown = topb_selections(server, "show", "s-2").printed
    assert shown.endswith("  error       row group 3 is torn [POOL_UNREADABLE]\n")
    assert json.loads(topb_selections(server, "show", "s-0", "--json").printed)["end_time"] is None


def test_cancel_cancels_a_selection_and_prints_it(server, catalog):
    assert topb_selections(server, "cancel", "s-0").printed.startswith("selection s-0: cancelled\n")


def test_a_result_is_shown_and_written_as_select_does(server, catalog, tmp_path):
    out = tmp_path / "picks.csv"
    shown = topb_selections(server, "result", "s-1", "--out", out).printed
    assert shown.splitlines()[1].split()[:4] == ["1", "image-1", "1.000000", "dog"]
    with out.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["image-1", "image-2", "image-3"]
    assert json.loads(topb_selections(server, "result", "r-1", "--json").printed)["selection"] == "s-1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["result", "s-2"], "selection s-2 failed: row group 3 is torn [POOL_UNREADABLE]"),
        (["show", "x"], "there is no selection x [SELECTION_NOT_FOUND]"),
    ],
)
def test_a_failed_or_unknown_selection_fails_the_command(server, catalog, arguments, said):
    assert topb_selections(server, *arguments) == Outcome(1, "", f"error: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["result", "s-1", "--out", "picks.txt"], "must end in .csv or .parquet"),
        (["list", "--state", "done"], "'done' is not one of 'pending', 'running'"),
        (["show"], "'ID'"),
    ],
)
def test_invalid_arguments_are_refused_before_the_server_is_called(server, catalog, arguments, said):
    refused = topb_selections(server, *arguments)
    assert refused.exit_code == 2
    assert said in refused.err
    assert catalog == []


def test_several_selections_are_cancelled_and_listed(server, catalog):
    cancelled = topb_selections(server, "cancel", "s-0", "r-1").out.splitlines()
    assert [line.split()[:2] for line in cancelled[1:]] == [["s-0", "cancelled"], ["s-1", "cancelled"]]
    listed = json.loads(topb_selections(server, "cancel", "s-0", "s-1", "--json").printed)
    assert [selection["state"] for selection in listed] == ["cancelled", "cancelled"]


def test_no_selection_is_cancelled_if_one_is_unknown(server, catalog):
    assert topb_selections(server, "cancel", "s-0", "x").exit_code == 1
    shown = json.loads(topb_selections(server, "show", "s-0", "--json").printed)
    assert shown["state"] == "running"


def test_selections_are_cancelled_by_state_and_age(server, catalog):
    old = topb_selections(server, "cancel", "--state", "running", "--model", "m", "--older-than", 10_000)
    assert old.printed == "No selections.\n"
    assert catalog[0].states == [selection_pb2.SELECTION_STATE_RUNNING]
    assert catalog[0].model == "m"
    cancelled = topb_selections(server, "cancel", "--state", "running", "--older-than", 1).out.splitlines()
    assert [line.split()[0] for line in cancelled[1:]] == ["s-0", "s-1", "s-2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give the IDs of selections, or --state"),
        (["s-0", "--state", "pending"], "give the IDs of selections, or --state"),
        (["s-0", "--older-than", "1"], "require --state"),
        (["--state", "succeeded"], "'succeeded' is not one of"),
    ],
)
def test_a_cancel_that_is_unclear_is_refused(server, catalog, arguments, said):
    refused = topb_selections(server, "cancel", *arguments)
    assert refused.exit_code == 2
    assert said in refused.err
    assert catalog == []
