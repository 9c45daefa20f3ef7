from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest

from support.command_line import Outcome, topb
from topb import NotFoundError, __version__, commands

pytestmark = pytest.mark.sdk


@pytest.fixture
def command(monkeypatch):
    """Make `topb NAME` call the given function with its arguments, as if an entry point named it."""

    def install(name, function):
        click_command = click.Command(
            name,
            params=[click.Argument(["arguments"], nargs=-1)],
            callback=lambda arguments: function(*arguments),
        )
        entry = SimpleNamespace(name=name, value="a_plugin.module:run", load=lambda: click_command)
        monkeypatch.setattr(commands, "entry_points", lambda **_: [entry])

    return install


def raising(error):
    def run(*arguments, **settings):
        raise error

    return run


def test_help_imports_no_command_and_no_heavy_package():
    program = (
        "import sys; from topb.commands import main; main(['--help'])\n"
        "heavy = {'torch', 'onnxruntime', 'pyarrow', 'topb_scorer', 'topb_trainer', 'topb.commands.select'}\n"
        "print('loaded', sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for name in commands._DESCRIPTIONS:
        assert f"\n  {name} " in shown.stdout
    assert shown.stdout.splitlines()[-1] == "loaded []"


def test_every_entry_point_of_this_distribution_is_described():
    entries = importlib.metadata.distribution("topb").entry_points.select(group="topb.commands")
    assert {entry.name for entry in entries} == set(commands._DESCRIPTIONS)


def test_the_version_option_prints_the_version():
    assert topb("--version").printed == f"topb {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "Usage: topb"),
        ("selections", "Usage: topb selections"),
        ("selections list", "Missing option '--server'"),
        ("select", "Missing argument 'POOL'. (see topb select --help)"),
        ("select p --budget x", "(see topb select --help)"),
        ("slect", "'select'"),
        ("selections lst", "Did you mean 'list'? (see topb selections --help)"),
        ("info --servr x", "Did you mean '--server'?"),
        ("selections list --server x --state runing", "Did you mean 'running'?"),
    ],
)
def test_a_usage_error_exits_with_code_2_and_suggests_the_nearest_word(arguments, said, monkeypatch):
    monkeypatch.delenv("TOPB_SERVER", raising=False)
    outcome = topb(*arguments.split())
    assert outcome.exit_code == 2
    assert said in outcome.err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_exits_with_code_0(option):
    assert topb("select", option).printed.startswith("Usage: topb select [OPTIONS]")


def completed(monkeypatch, line):
    """Return the outcome of completing this line, and what the shell is told to offer."""
    monkeypatch.setenv("_TOPB_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    outcome = topb()
    return outcome, [item.partition(",")[2] for item in outcome.out.split()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("topb sel", ["select", "selections"]),
        ("topb selections ", ["list", "show", "cancel", "result"]),
        ("topb selections list --st", ["--state"]),
        ("topb selections list --state s", ["succeeded"]),
        ("topb select --format ", ["parquet", "image-folder", "webdataset", "csv", "vectors"]),
    ],
)
def test_commands_options_and_choices_are_completed(monkeypatch, line, offered):
    outcome, words = completed(monkeypatch, line)
    assert (outcome.exit_code, words) == (0, offered)


def test_a_command_whose_package_is_missing_offers_no_completions(command, monkeypatch):
    monkeypatch.setattr(commands._LazyCommand, "make_context", raising(ModuleNotFoundError("torch")))
    command("train", print)
    assert completed(monkeypatch, "topb train --") == (Outcome(1, "", ""), [])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_is_printed(shell):
    assert f"_TOPB_COMPLETE={shell}_complete" in topb("completion", shell).printed


def test_a_command_of_another_distribution_is_found_and_listed(command):
    command("plugin", print)
    assert topb("plugin", "a", "b", "c").printed == "a b c\n"
    assert "From a_plugin.module" in topb("--help").printed


@pytest.mark.parametrize(
    ("name", "missing", "said"),
    [
        (
            "serve",
            "onnxruntime",
            "needs the scorer: pip install 'topb[scorer]' (no module named onnxruntime)",
        ),
        ("demo", "sklearn.svm", "needs the demo: pip install 'topb[demo]' (no module named sklearn.svm)"),
        ("plugin", "zarr.core", "needs zarr.core: pip install zarr"),
    ],
)
def test_a_missing_package_names_the_extra_that_brings_it(command, name, missing, said):
    command(name, raising(ModuleNotFoundError(f"No module named {missing!r}", name=missing)))
    assert topb(name) == Outcome(2, "", f"error: topb {name} {said}\n")


def test_a_missing_module_of_topb_itself_asks_for_a_new_installation(command):
    command("serve", raising(ModuleNotFoundError("No module named 'topb_scorer.x'", name="topb_scorer.x")))
    said = "error: topb serve: this installation of topb lacks topb_scorer.x; reinstall topb\n"
    assert topb("serve") == Outcome(2, "", said)


class ForeignError(Exception):
    reason = "BUNDLE_TORN"


NOT_FOUND = NotFoundError("no such pool", reason="POOL_NOT_FOUND")


@pytest.mark.parametrize(
    ("error", "said", "exit_code"),
    [
        (NOT_FOUND, "no such pool [POOL_NOT_FOUND]", 1),
        (ForeignError("scorer.onnx is torn"), "scorer.onnx is torn [BUNDLE_TORN]", 1),
        (FileNotFoundError(2, "No such file", "a.txt"), "[Errno 2] No such file: 'a.txt'", 1),
        (KeyError("k"), "unexpected KeyError: 'k' (TOPB_TRACEBACK=1 shows where)", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_an_error_is_printed_as_one_line_and_gives_an_exit_code(command, monkeypatch, error, said, exit_code):
    monkeypatch.delenv("TOPB_TRACEBACK", raising=False)
    command("fail", raising(error))
    assert topb("fail") == Outcome(exit_code, "", f"error: {said}\n")


def test_the_traceback_is_printed_if_the_environment_asks_for_it(command, monkeypatch):
    monkeypatch.setenv("TOPB_TRACEBACK", "1")
    command("fail", raising(NOT_FOUND))
    shown = topb("fail").err
    assert "Traceback" in shown
    assert shown.endswith("error: no such pool [POOL_NOT_FOUND]\n")
