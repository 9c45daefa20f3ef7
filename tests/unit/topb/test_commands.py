from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import click
import pytest

import topb
from topb import commands

pytestmark = pytest.mark.sdk


@pytest.fixture
def command(monkeypatch):
    """Makes `topb NAME` call the given function with its arguments, as if an entry point named it."""

    def install(name, function):
        class Entry:
            value = "a_plugin.module:run"

            def load(self):
                arguments = click.Argument(["arguments"], nargs=-1)
                return click.Command(
                    name, params=[arguments], callback=lambda arguments: function(*arguments)
                )

        entry = Entry()
        entry.name = name
        monkeypatch.setattr(commands, "entry_points", lambda **_: [entry])

    return install


def raising(error):
    def run(*arguments):
        raise error

    return run


def test_help_imports_no_command_and_nothing_heavy():
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


def test_no_command_shows_the_help_as_a_usage_error(capsys):
    assert commands.main([]) == 2
    assert "Usage: topb" in capsys.readouterr().err


def test_the_version(capsys):
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out == f"topb {topb.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["slect"], "'select'"),
        (["selections", "lst"], "Did you mean 'list'? (see topb selections --help)"),
        (["info", "--servr", "x"], "Did you mean '--server'?"),
        (["selections", "list", "--server", "x", "--state", "runing"], "Did you mean 'running'?"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(capsys, arguments, said):
    assert commands.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def completed(monkeypatch, capsys, line):
    """What the shell is told to offer after this line."""
    monkeypatch.setenv("_TOPB_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    exit_code = commands.main([])
    return exit_code, [item.partition(",")[2] for item in capsys.readouterr().out.split()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("topb sel", ["select", "selections"]),
        ("topb selections ", ["list", "show", "cancel", "result"]),
        ("topb selections list --st", ["--state"]),
        ("topb selections list --state s", ["succeeded"]),
        ("topb select --format ", ["parquet", "image-folder", "webdataset", "csv"]),
    ],
)
def test_commands_options_and_choices_are_completed(monkeypatch, capsys, line, offered):
    assert completed(monkeypatch, capsys, line) == (0, offered)


def test_a_command_whose_package_is_missing_completes_nothing(command, monkeypatch, capsys):
    monkeypatch.setattr(commands._LazyCommand, "make_context", raising(ModuleNotFoundError("torch")))
    command("train", print)
    assert completed(monkeypatch, capsys, "topb train --") == (1, [])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_is_printed(shell, capsys):
    assert commands.main(["completion", shell]) == 0
    assert f"_TOPB_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_a_command_of_another_distribution_is_found_and_listed(command, capsys):
    command("plugin", print)
    assert commands.main(["plugin", "a", "b", "c"]) == 0
    assert capsys.readouterr().out == "a b c\n"
    assert commands.main(["--help"]) == 0
    assert "From a_plugin.module" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "missing", "said"),
    [
        (
            "serve",
            "onnxruntime",
            "topb serve needs the scorer: pip install 'topb[scorer]' (no module named onnxruntime)",
        ),
        (
            "demo",
            "sklearn.svm",
            "topb demo needs the demo: pip install 'topb[demo]' (no module named sklearn.svm)",
        ),
        ("plugin", "zarr.core", "topb plugin needs zarr.core: pip install zarr"),
        (
            "serve",
            "topb_scorer.x",
            "topb serve: this installation of topb lacks topb_scorer.x; reinstall topb",
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["select"],
        ["select", "p", "--budget", "x"],
        ["info", "--nonsense"],
        ["selections"],
        ["selections", "list"],
    ],
)
def test_a_usage_error_ends_with_2(arguments, capsys, monkeypatch):
    monkeypatch.delenv("TOPB_SERVER", raising=False)
    assert commands.main(arguments) == 2
    assert f"topb {arguments[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", ["select", "info", "selections"])
def test_help_of_a_command_ends_with_0(name, option, capsys):
    assert commands.main([name, option]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: topb {name} [OPTIONS]")
