from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import time

import pytest

import topb
from topb import commands

pytestmark = pytest.mark.sdk


@pytest.fixture
def command(monkeypatch):
    """Makes `topb NAME` run the given function, as if an entry point named it."""

    def install(name, run):
        class Entry:
            value = "a_plugin.module:run"

            def load(self):
                return run() if name == "unloadable" else run

        entry = Entry()
        entry.name = name
        monkeypatch.setattr(commands, "entry_points", lambda **_: [entry])

    return install


def raising(error):
    def run(*arguments):
        raise error

    return run


def test_help_lists_the_commands_and_loads_none(capsys):
    assert commands.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("select", "info", "serve", "model", "train", "experiment", "report", "demo"):
        assert f"\n  {name} " in shown


def test_help_of_all_commands_imports_nothing_heavy():
    program = (
        "import sys; from topb.commands import main; main(['--help'])\n"
        "heavy = {'torch', 'onnxruntime', 'pyarrow', 'topb_scorer', 'topb_trainer', 'topb.commands.select'}\n"
        "print('loaded', sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "loaded []"


def test_every_entry_point_of_this_distribution_is_described():
    entries = importlib.metadata.distribution("topb").entry_points.select(group="topb.commands")
    assert {entry.name for entry in entries} == set(commands._DESCRIPTIONS)


def test_no_command_shows_the_help_as_a_usage_error(capsys):
    assert commands.main([]) == 2
    assert "usage: topb" in capsys.readouterr().err


def test_the_version(capsys):
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out == f"topb {topb.__version__}\n"


def test_a_misspelt_command_is_answered_with_the_nearest(capsys):
    assert commands.main(["slect"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no command 'slect'; did you mean select? (topb --help lists them)\n"
    )


def test_a_command_of_another_distribution_is_found_and_listed(command, capsys):
    command("plugin", lambda arguments: len(arguments))
    assert commands.main(["plugin", "a", "b", "c"]) == 3
    assert commands.main(["--help"]) == 0
    assert "plugin  from a_plugin.module" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "missing", "said"),
    [
        (
            "serve",
            "onnxruntime",
            "topb serve needs the scorer: pip install 'topb[scorer]' (no module named onnxruntime)",
        ),
        (
            "train",
            "torch.nn",
            "topb train needs the trainer: pip install 'topb[trainer]' (no module named torch.nn)",
        ),
        ("demo", "sklearn", "topb demo needs the demo: pip install 'topb[demo]' (no module named sklearn)"),
        ("plugin", "zarr.core", "topb plugin needs zarr.core: pip install zarr"),
        (
            "serve",
            "topb_scorer.service",
            "topb serve: this installation of topb lacks topb_scorer.service; install topb again",
        ),
    ],
)
def test_a_missing_package_names_the_extra_that_brings_it(command, capsys, name, missing, said):
    command(name, raising(ModuleNotFoundError(f"No module named {missing!r}", name=missing)))
    assert commands.main([name]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


class ForeignError(Exception):
    reason = "BUNDLE_TORN"


@pytest.mark.parametrize(
    ("error", "said", "exit_code"),
    [
        (topb.NotFoundError("no such pool", reason="POOL_NOT_FOUND"), "no such pool [POOL_NOT_FOUND]", 1),
        (ForeignError("scorer.onnx is torn"), "scorer.onnx is torn [BUNDLE_TORN]", 1),
        (FileNotFoundError(2, "No such file", "a.txt"), "[Errno 2] No such file: 'a.txt'", 1),
        (KeyError("k"), "unexpected KeyError: 'k' (TOPB_TRACEBACK=1 shows where)", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(command, capsys, monkeypatch, error, said, exit_code):
    monkeypatch.delenv("TOPB_TRACEBACK", raising=False)
    command("fail", raising(error))
    assert commands.main(["fail"]) == exit_code
    captured = capsys.readouterr()
    assert captured.err == f"error: {said}\n"
    assert captured.out == ""


def test_the_traceback_comes_when_it_is_asked_for(command, capsys, monkeypatch):
    monkeypatch.setenv("TOPB_TRACEBACK", "1")
    command("fail", raising(topb.NotFoundError("no such pool", reason="POOL_NOT_FOUND")))
    assert commands.main(["fail"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: no such pool [POOL_NOT_FOUND]\n")


@pytest.mark.parametrize("arguments", [["select"], ["select", "p", "--budget", "x"], ["info", "--nonsense"]])
def test_a_usage_error_ends_with_2(arguments, capsys):
    assert commands.main(arguments) == 2
    assert f"usage: topb {arguments[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["select", "info"])
def test_help_of_a_command_ends_with_0(name, capsys):
    assert commands.main([name, "--help"]) == 0
    assert f"usage: topb {name}" in capsys.readouterr().out


def test_ctrl_c_ends_a_running_selection_with_130(server, tmp_path):
    def stall(request, context):
        while context.is_active():
            time.sleep(0.01)
        yield from ()

    server.select_batch = stall
    arguments = ["select", "/p", "--budget", "1", "--server", server.address]
    # Where the tests run in the background SIGINT is ignored, and a child would inherit that.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from topb.commands import main; sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOPB_TRACEBACK": ""},
    ) as process:
        while not server.timeouts:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "error: interrupted\n")


def test_a_reader_that_has_enough_is_no_error(server, script):
    from topb.v1 import selection_pb2

    server.select_batch = lambda _request, _context: script.whole_answer(
        selection_pb2.SelectBatchResponse, pick_count=5000
    )
    arguments = ["select", "/p", "--budget", "5000", "--json", "--server", server.address]
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from topb.commands import main; sys.exit(main())", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"{\n"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=10)
    assert err == b""
