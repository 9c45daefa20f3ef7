from __future__ import annotations

import pytest

import topb
from support.scripted_server import duration, picks, summary, whole_answer
from topb._collecting import ResultCollector
from topb.v1 import selection_pb2

pytestmark = pytest.mark.sdk

Response = selection_pb2.SelectBatchResponse


def collected(events, progress=None, **about):
    collector = ResultCollector(progress, **about)
    collector.begin()
    for event in events:
        collector.receive(event)
    return collector.result()


def test_a_result_holds_the_summary_and_every_page_of_picks():
    started = Response(started=selection_pb2.SelectionStarted(selection="s-1"))
    result = collected([started, *whole_answer(Response, pick_count=5, budget=6)])
    assert result.ids == tuple(f"image-{rank}" for rank in range(1, 6))
    assert result.picks[0] == topb.Pick("image-1", 1, 1.0, 1, 0.5, 1.25, predicted_class_name="dog")
    assert result.accounts == topb.Accounts(read=100, scored=100)
    assert (result.selection, result.strategy, result.seed, result.budget) == ("s-1", "aalu", 7, 6)
    assert result.elapsed_seconds == 1.5
    assert result.fell_short


def test_what_the_caller_knows_completes_the_result_and_the_progress():
    seen = []
    progress = [Response(progress=selection_pb2.SelectionProgress(read=5, total=total)) for total in (0, 9)]
    result = collected([*progress, *whole_answer(Response)], seen.append, pool="/p", request_id="r", total=7)
    assert (result.pool, result.request_id) == ("/p", "r")
    assert [step.total for step in seen] == [7, 9]


def test_radius_measures_and_accounts_are_read():
    answer = summary(1)
    answer.measures["coverage"] = 0.5
    answer.accounts.CopyFrom(selection_pb2.Accounts(read=10, scored=4, duplicate=2, excluded=1))
    answer.accounts.skipped.add(reason="IMAGE_TOO_LARGE", count=1)
    answer.accounts.skipped.add(reason="IMAGE_CORRUPT", count=2)
    answer.accounts.skipped_examples.add(id="x", reason="IMAGE_CORRUPT", detail="no JPEG")
    (pick,) = picks(1)
    pick.radius = 2.5
    page = selection_pb2.PickPage(picks=[pick])
    result = collected([Response(summary=answer), Response(picks=page)])
    assert result.picks[0].radius == 2.5
    assert result.measures == {"coverage": 0.5}
    assert result.accounts == topb.Accounts(
        read=10,
        scored=4,
        skipped={"IMAGE_CORRUPT": 2, "IMAGE_TOO_LARGE": 1},
        duplicate=2,
        excluded=1,
        skipped_examples=(topb.SkippedRow("x", "IMAGE_CORRUPT", "no JPEG"),),
    )


def test_progress_never_goes_back_and_unknown_events_are_ignored():
    seen = []
    reads = [
        Response(progress=selection_pb2.SelectionProgress(read=read, total=9, elapsed=duration(1.25)))
        for read in (5, 2, 8)
    ]
    collected([*reads, Response(), *whole_answer(Response)], seen.append)
    assert seen == [topb.Progress(5, 9, 1.25), topb.Progress(8, 9, 1.25)]


def test_an_answer_that_restarts_replaces_the_first():
    answer = whole_answer(Response, pick_count=6)
    collector = ResultCollector(None)
    for part in (answer[:2], answer):
        collector.begin()
        for event in part:
            collector.receive(event)
    assert len(collector.result().picks) == 6


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda _answer: [], "without a result"),
        (lambda answer: answer[:1], "announced 7 picks but sent 0"),
        (lambda answer: answer[:2], "announced 7 picks but sent 3"),
        (lambda answer: [*answer, answer[-1]], "rank 4 instead of rank 8"),
        (lambda answer: [answer[0], answer[2], answer[1]], "rank 4 instead of rank 1"),
        (lambda answer: answer[1:], "picks before the summary"),
        (lambda answer: [answer[0], *answer], "second summary"),
    ],
)
def test_a_result_that_is_incomplete_or_out_of_order_is_a_protocol_error(cut, said):
    with pytest.raises(topb.ProtocolError, match=said):
        collected(cut(whole_answer(Response, pick_count=7)))


def test_accounts_that_do_not_add_up_are_a_protocol_error():
    answer = summary(0)
    answer.accounts.scored -= 1
    with pytest.raises(topb.ProtocolError) as caught:
        collected([Response(summary=answer)])
    assert caught.value.reason == "ACCOUNTS_DO_NOT_ADD_UP"
