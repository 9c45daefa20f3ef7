"""The commands parse what the containers and the pods pass to them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import check
import click
import pytest

from topb_scorer.commands import serve
from topb_scorer.service import server

REPOSITORY = Path(__file__).parents[3]


def arguments_of(command: str) -> list[list[str]]:
    """Return the arguments after `topb COMMAND`, of every container file and every pod."""
    files = [path.read_text() for path in (REPOSITORY / "deploy").glob("*.Dockerfile")]
    passed = [json.loads(line) for text in files for line in re.findall(r"^CMD (.*)$", text, re.MULTILINE)]
    passed += [
        container["args"]
        for documents in check.render(REPOSITORY).values()
        for document in documents
        if document["kind"] in ("Deployment", "Job")
        for container in document["spec"]["template"]["spec"]["containers"]
    ]
    return [arguments for name, *arguments in passed if name == command]


def options_of(command: click.Command, arguments: list[str]) -> dict[str, Any]:
    return command.make_context(command.name, list(arguments)).params


def test_serve_parses_its_arguments() -> None:
    passed = arguments_of("serve")
    assert len(passed) >= 3
    for arguments in passed:
        options = options_of(serve.run, arguments)
        assert (str(options["models"]), str(options["state"])) == ("/models", "/state")
        assert options["allow_root"] == ("/data",)


def test_train_parses_its_arguments() -> None:
    train = pytest.importorskip("topb_trainer.commands.train", exc_type=ImportError)
    passed = [arguments for arguments in arguments_of("train") if arguments != ["--help"]]
    assert len(passed) >= 1
    assert {str(options_of(train.run, arguments)["out"]) for arguments in passed} == {"/models"}


def test_the_catalog_url_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(check.CATALOG_VARIABLE, "postgresql+psycopg://db/topb")
    assert options_of(serve.run, ["--models=/models"])["catalog_url"] == "postgresql+psycopg://db/topb"


def test_the_check_knows_how_long_the_server_waits_for_ended_calls() -> None:
    assert check.CANCEL_SECONDS == server._CANCEL_SECONDS
