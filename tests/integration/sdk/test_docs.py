from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from support.scripted_server import (
    StreamServer,
    abort,
    error_details,
    model_message,
    picks,
    server_info_message,
    summary,
    whole_answer,
)
from topb.v1 import model_pb2, selection_pb2

pytestmark = pytest.mark.sdk

GUIDE = Path(__file__).parents[3] / "docs" / "sdk.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_code_block_of_the_sdk_guide_runs(example, server, tmp_path, monkeypatch, capsys):
    def serve(request, context):
        if request.spec.model:
            abort(context, grpc.StatusCode.NOT_FOUND, "no such model", error_details("MODEL_NOT_FOUND"))
        yield selection_pb2.SelectBatchResponse(started=selection_pb2.SelectionStarted(selection="s-1"))
        yield selection_pb2.SelectBatchResponse(progress=selection_pb2.SelectionProgress(read=5))
        yield from whole_answer(selection_pb2.SelectBatchResponse)

    scored = selection_pb2.ImageScores.Scored(score=0.5, probabilities=[0.25, 0.75, 0.0])
    skipped = selection_pb2.ImageScores.Skipped(reason="IMAGE_CORRUPT")
    selection = selection_pb2.Selection(
        id="s-1", request_id="round-8", state="SELECTION_STATE_SUCCEEDED", summary=summary(3)
    )
    server.get_selection = selection_pb2.GetSelectionResponse(selection=selection)
    server.cancel_selection = selection_pb2.CancelSelectionResponse(selection=selection)
    server.list_selections = selection_pb2.ListSelectionsResponse(selections=[selection])
    server.list_picks = selection_pb2.ListPicksResponse(picks=picks(3))
    server.select_batch = serve
    server.select_batch_from_stream = StreamServer()
    server.score_images = selection_pb2.ScoreImagesResponse(
        results=[{"scored": scored}, {"skipped": skipped}]
    )
    server.get_server_info = server_info_message()
    server.get_model = model_pb2.GetModelResponse(model=model_message())
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"an image")
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace("localhost:50051", server.address), "sdk.md", "exec"), {})
