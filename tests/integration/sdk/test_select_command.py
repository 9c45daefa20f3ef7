from __future__ import annotations

import csv
import io
import json
import sys
from types import SimpleNamespace

import pytest

from support.command_line import Outcome, topb
from topb import Accounts, Pick, Pool, Progress, QueuePlace, SelectionResult, commands
from topb.commands import _picks_file, _progress_line, select
from topb.v1 import model_pb2, selection_pb2

pytestmark = pytest.mark.sdk

Response = selection_pb2.SelectBatchResponse


@pytest.fixture
def answer(server, script, model_message):
    """Script a server with a model to answer with a number of picks; return the requests that it gets."""
    requests = []

    def prepare(pick_count=3, *, budget=None):
        def serve(request, context):
            requests.append(request)
            yield Response(progress=selection_pb2.SelectionProgress(read=50, total=100))
            yield from script.whole_answer(Response, pick_count=pick_count, budget=budget)

        server.select_batch = serve
        server.get_model = lambda _request, _context: model_pb2.GetModelResponse(model=model_message)
        return requests

    return prepare


def topb_select(server, *arguments, pool="/p", budget=3):
    return topb("select", pool, "--budget", budget, "--server", server.address, *arguments)


def test_select_prints_a_table_of_picks_and_the_row_counts(server, answer, script):
    answer()
    captured = topb_select(server, "--request-id", "round-3")
    assert captured.exit_code == 0
    assert captured.out.splitlines() == [
        "rank  id          score  class  probability  entropy",
        "   1  image-1  1.000000  dog         0.5000   1.2500",
        "   2  image-2  0.500000  horse       0.5000   1.2500",
        "   3  image-3  0.333333  cat         0.5000   1.2500",
        f"3 picked by aalu with model {script.MODEL} in 1.5 s.",
        "Pool /p, seed 7, request round-3.",
        "Of 100 rows read: 100 scored.",
    ]
    assert captured.err == ""


def test_a_long_table_is_cut_after_twenty_picks_and_names_the_options_for_all(server, answer, tmp_path):
    answer(50)
    lines = topb_select(server, budget=50).printed.splitlines()
    assert lines[20].split()[1] == "image-20"
    assert lines[21] == "… and 30 more: --out FILE or --json gives them all."
    out = tmp_path / "picks.csv"
    lines = topb_select(server, "--out", out, budget=50).printed.splitlines()
    assert lines[21] == f"All 50 picks are in {out}."


def test_classes_are_shown_by_number_if_the_server_does_not_name_them(server, script):
    def serve(request, context):
        (pick,) = script.picks(1)
        pick.ClearField("predicted_class_name")
        yield Response(summary=script.summary(1))
        yield Response(picks=selection_pb2.PickPage(picks=[pick]))

    server.select_batch = serve
    assert topb_select(server, budget=1).printed.splitlines()[1].split()[3] == "1"


def test_every_row_count_is_shown_as_text(server):
    def serve(request, context):
        summary = selection_pb2.SelectionSummary(model="m", strategy="aalu", budget=1)
        summary.accounts.CopyFrom(selection_pb2.Accounts(read=2010, scored=1990, duplicate=5, excluded=12))
        summary.accounts.skipped.add(reason="IMAGE_CORRUPT", count=3)
        summary.accounts.skipped_examples.add(id="a\x1b[31m", reason="IMAGE_CORRUPT", detail="no\nJPEG")
        yield Response(summary=summary)

    server.select_batch = serve
    captured = topb_select(server, "--request-id", "a\nb", budget=1)
    assert captured.exit_code == 0
    assert captured.out.splitlines() == [
        "Nothing picked by aalu with model m in 0.0 s.",
        r"Pool /p, seed 0, request a\nb.",
        "Of 2,010 rows read: 1,990 scored, 3 skipped (3 IMAGE_CORRUPT), 5 duplicate, 12 excluded.",
        r"  skipped a\x1b[31m: IMAGE_CORRUPT, no\nJPEG",
    ]
    assert "picked 0 of 1 requested images" in captured.err


def test_a_pool_smaller_than_the_budget_causes_a_warning_even_with_quiet(server, answer):
    answer(3, budget=5)
    captured = topb_select(server, "--quiet", budget=5)
    assert captured.exit_code == 0
    assert captured.out == ""
    assert captured.err.startswith("warning: picked 3 of 5 requested images")


def test_with_json_nothing_else_is_written_to_stdout(server, answer, script):
    answer(3, budget=5)
    result = json.loads(topb_select(server, "--json", "--request-id", "round-3").printed)
    provenance = (result[name] for name in ("model", "strategy", "seed", "pool", "request_id"))
    assert [*provenance] == [script.MODEL, "aalu", 7, "/p", "round-3"]
    assert result["fell_short"] is True
    assert result["picks"][0] == {
        "id": "image-1",
        "rank": 1,
        "score": 1.0,
        "predicted_class": 1,
        "probability": 0.5,
        "entropy": 1.25,
        "radius": None,
        "predicted_class_name": "dog",
    }


def test_every_option_reaches_the_server(server, answer, tmp_path):
    requests = answer()
    labelled = tmp_path / "labelled.txt"
    labelled.write_text("a\r\nb c\n\n7", encoding="utf-8")
    options = "--strategy random --model m --seed 5 --format image-folder --id-column i --image-column p "
    options += f"--path-column f --strategy-option k=v=w --timeout 30 --request-id r --exclude {labelled}"
    assert topb_select(server, *options.split()).exit_code == 0
    assert topb_select(server, "--exclude", "/labelled.parquet", "--exclude-column", "name").exit_code == 0
    assert (requests[0].request_id, requests[0].detached) == ("r", False)
    spec = requests[0].spec
    assert (spec.strategy, spec.model, spec.seed, spec.budget) == ("random", "m", 5, 3)
    assert dict(spec.strategy_options) == {"k": "v=w"}
    assert list(spec.exclude.ids) == ["a", "b c", "7"]
    assert requests[0].pool == selection_pb2.Pool(
        uri="/p",
        format=selection_pb2.POOL_FORMAT_IMAGE_FOLDER,
        id_column="i",
        image_column="p",
        path_column="f",
    )
    assert requests[1].spec.exclude == selection_pb2.Exclusion(uri="/labelled.parquet", column="name")
    # gRPC rounds a deadline up on its way.
    assert 25 < server.timeouts[0] < 31


def test_detach_prints_the_selection_id_and_does_not_wait(server):
    requests = []

    def serve(request, context):
        requests.append(request)
        yield Response(started=selection_pb2.SelectionStarted(selection="s-1"))

    server.select_batch = serve
    assert topb_select(server, "--detach", "--seed", "4").printed == "s-1\n"
    detached = json.loads(topb_select(server, "--detach", "--json", "--request-id", "round-3").printed)
    assert detached == {"selection": "s-1", "request_id": "round-3"}
    assert [request.detached for request in requests] == [True, True]
    assert requests[0].spec.seed == 4


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_output_file_holds_every_pick_and_its_provenance(server, answer, script, tmp_path, suffix):
    if suffix == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    answer(50)
    out = tmp_path / f"picks.{suffix}"
    options = ("--out", out, "--quiet", "--request-id", "round-3")
    assert topb_select(server, *options, budget=50) == Outcome(0, "", "")
    assert list(tmp_path.iterdir()) == [out]
    expected_origin = {
        "model": script.MODEL,
        "strategy": "aalu",
        "seed": 7,
        "pool": "/p",
        "request_id": "round-3",
    }
    if suffix == "csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        origins = [{name: row.pop(name) for name in expected_origin} for row in rows]
        assert origins == [{**expected_origin, "seed": "7"}] * 50
    else:
        table = parquet.read_table(out)
        rows = table.to_pylist()
        assert json.loads(table.schema.metadata[b"topb.provenance"]) == expected_origin
    assert list(rows[0]) == [
        "id",
        "rank",
        "score",
        "predicted_class",
        "probability",
        "entropy",
        "radius",
        "predicted_class_name",
    ]
    expected = [(f"image-{rank}", 1 / rank) for rank in range(1, 51)]
    assert [(row["id"], float(row["score"])) for row in rows] == expected


def test_parquet_without_pyarrow_is_refused_before_anything_is_scored(server, answer, monkeypatch):
    requests = answer()
    monkeypatch.setattr(_picks_file.importlib.util, "find_spec", lambda _name: None)
    refused = topb_select(server, "--out", "picks.parquet")
    assert refused.exit_code == 2
    assert "Parquet needs pyarrow: pip install pyarrow" in refused.err
    assert requests == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "picks.txt"], "must end in .csv or .parquet"),
        (["--out", "/no/such/folder/picks.csv"], "the folder /no/such/folder does not exist"),
        (["--device", "cuda:0"], "--device requires --bundle"),
        (["--detach", "--out", "picks.csv"], "topb selections result --out"),
        (["--batch-size", "8"], "--batch-size requires --bundle"),
        (["--strategy-option", "k"], "expected NAME=VALUE"),
        (["--exclude", "/no/such/labelled.txt"], "No such file"),
        (["--exclude", sys.executable], "the file is not UTF-8 text"),
        (["--bundle", "/b"], "--server and --bundle cannot be used together"),
    ],
)
def test_contradictory_options_are_refused_before_anything_is_scored(server, answer, arguments, said):
    requests = answer()
    refused = topb_select(server, *arguments)
    assert refused.exit_code == 2
    assert said in refused.err
    assert requests == []


@pytest.mark.parametrize(
    "option",
    [["--model", "m"], ["--timeout", "5"], ["--request-id", "r"], ["--detach"], ["--tls"], ["--tls-ca", "x"]],
)
def test_server_options_are_refused_with_a_bundle(option):
    refused = topb("select", "/p", "-b", 1, "--bundle", "/b", *option)
    assert refused.exit_code == 2
    assert f"{option[0]} requires --server" in refused.err


def test_an_error_of_the_server_is_printed_as_one_line(server, script):
    import grpc

    server.select_batch = lambda _request, context: script.abort(
        context, grpc.StatusCode.NOT_FOUND, "there is no pool /p", script.error_details("POOL_NOT_FOUND")
    )
    assert topb_select(server) == Outcome(1, "", "error: there is no pool /p [POOL_NOT_FOUND]\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_is_erased_at_the_end(server, answer, monkeypatch):
    answer()
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert commands.main(["select", "/p", "--budget", "3", "--server", server.address, "--json"]) == 0
    shown = sys.stderr.getvalue()
    assert "50 of 100 images (50 %)" in shown
    assert shown.endswith("\r\x1b[K")


def test_progress_is_shown_as_text_with_rate_and_remaining_time():
    text = _progress_line.progress_text
    assert text(Progress(12_000, 60_000, 4.0)) == (
        "12,000 of 60,000 images (20 %), 3,000 images/s, 16 s to go"
    )
    assert text(Progress(12_000, 0, 4.0)) == "12,000 images, 3,000 images/s"
    assert text(Progress(0, 10, 0.0)) == "0 of 10 images (0 %)"
    assert text(Progress(0, 10, 0.0, QueuePlace(3, 12))) == "place 3 of 12 in the queue"


def in_process(monkeypatch, load):
    monkeypatch.setattr(select, "entry_points", lambda **_: [SimpleNamespace(load=load)])


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """Replace the scorer by an engine that records its calls, and return them."""
    calls = []
    pick, accounts = Pick("a", 1, 0.5, 1, 0.75, 0.5, predicted_class_name="dog"), Accounts(read=1, scored=1)

    def select_batch(pool, budget, **arguments):
        calls.append((pool, budget, arguments))
        return SelectionResult((pick,), accounts, "m", "aalu", 0, budget, 0.25)

    in_process(monkeypatch, lambda: select_batch)
    return calls


def test_bundle_option_selects_in_this_process(engine, tmp_path):
    options = f"--bundle {tmp_path} --device cuda:0 --batch-size 8 --seed 4 --exclude /l.parquet"
    shown = topb("select", "/p", "-b", 1, *options.split()).printed
    assert shown.splitlines()[1].split() == ["1", "a", "0.500000", "dog", "0.7500", "0.5000"]
    ((pool, budget, arguments),) = engine
    assert (pool, budget) == (Pool("/p", None, "id", "image", "path"), 1)
    assert arguments == {
        "bundle": tmp_path,
        "strategy": "aalu",
        "seed": 4,
        "exclude": (),
        "exclude_uri": "/l.parquet",
        "exclude_column": "id",
        "include_labelled": False,
        "strategy_options": {},
        "device": "cuda:0",
        "batch_size": 8,
        "state": None,
        "progress": None,
    }


def test_bundle_option_overrides_the_server_of_the_environment_and_reads_excluded_ids_locally(
    engine, tmp_path, monkeypatch
):
    monkeypatch.setenv("TOPB_SERVER", "nowhere:1")
    labelled = tmp_path / "labelled.txt"
    labelled.write_text("x\ny\n")
    topb("select", "/p", "-b", 1, "--bundle", tmp_path, "--exclude", labelled)
    ((_, _, arguments),) = engine
    assert (arguments["exclude"], arguments["exclude_uri"]) == ({"x": b"", "y": b""}, None)


def test_bundle_option_without_the_scorer_names_the_extra_to_install(monkeypatch):
    def load():
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    in_process(monkeypatch, load)
    said = "topb select --bundle needs the scorer: pip install 'topb[scorer]' (no module named onnxruntime)"
    assert topb("select", "/p", "-b", 1, "--bundle", "/b") == Outcome(2, "", f"error: {said}\n")
