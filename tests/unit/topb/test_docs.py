from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

import topb
from topb import _rpc_errors, errors
from topb.v1 import model_pb2, selection_pb2

pytestmark = pytest.mark.sdk

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLES = re.findall(r"```python\n(.*?)```", (DOCS / "sdk.md").read_text(encoding="utf-8"), re.DOTALL)
SOURCES = "".join(path.read_text(encoding="utf-8") for path in Path(topb.__path__[0]).rglob("[!v]*.py"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_guide_runs(
    example, server, script, server_info_message, model_message, tmp_path, monkeypatch, capsys
):
    def serve(request, context):
        if request.spec.model:
            script.abort(
                context, grpc.StatusCode.NOT_FOUND, "no such model", script.error_details("MODEL_NOT_FOUND")
            )
        yield selection_pb2.SelectBatchResponse(started=selection_pb2.SelectionStarted(selection="s-1"))
        yield selection_pb2.SelectBatchResponse(progress=selection_pb2.SelectionProgress(read=5))
        yield from script.whole_answer(selection_pb2.SelectBatchResponse)

    def score(request, context):
        scored = selection_pb2.ImageScores.Scored(score=0.5, probabilities=[0.25, 0.75, 0.0])
        skipped = selection_pb2.ImageScores.Skipped(reason="IMAGE_CORRUPT")
        return selection_pb2.ScoreImagesResponse(results=[{"scored": scored}, {"skipped": skipped}])

    selection = selection_pb2.Selection(
        id="s-1", request_id="round-8", state="SELECTION_STATE_SUCCEEDED", summary=script.summary(3)
    )
    server.get_selection = lambda _request, _context: selection_pb2.GetSelectionResponse(selection=selection)
    server.cancel_selection = lambda _request, _context: selection_pb2.CancelSelectionResponse(
        selection=selection
    )
    server.list_selections = lambda _request, _context: selection_pb2.ListSelectionsResponse(
        selections=[selection]
    )
    server.list_picks = lambda _request, _context: selection_pb2.ListPicksResponse(picks=script.picks(3))
    server.select_batch = serve
    server.select_batch_from_stream = script.StreamServer()
    server.score_images = score
    server.get_server_info = lambda _request, _context: server_info_message
    server.get_model = lambda _request, _context: model_pb2.GetModelResponse(model=model_message)
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"an image")
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace("localhost:50051", server.address), "sdk.md", "exec"), {})


def test_the_guide_draws_the_exception_tree_as_it_is():
    tree = errors.__doc__.partition("\n\n")[2].strip()
    assert tree in (DOCS / "errors.md").read_text(encoding="utf-8")


def test_the_guide_maps_every_code_as_the_client_does():
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z_, ]+) \| `(\w+)` \|$", text, re.MULTILINE)
    documented = {code: name for codes, name in rows for code in codes.split(", ")}
    assert documented == {code.name: kind.__name__ for code, kind in _rpc_errors.EXCEPTIONS.items()}


def test_the_guide_lists_every_reason_of_the_client():
    listed = re.findall(r"^\| ([A-Z_]+) \| `\w+` \| \S", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert set(listed) == set(re.findall(r'reason="([A-Z_]+)"', SOURCES))
