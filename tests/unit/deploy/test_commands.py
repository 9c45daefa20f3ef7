"""What the containers and pods run is what the commands understand."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from checks import containers, kustomize, servers

from topb_scorer.commands import serve
from topb_scorer.service import server

REPOSITORY = Path(__file__).parents[3]
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"


def commands_of(name: str) -> list[list[str]]:
    """The arguments after `topb NAME`, of every container file and every rendered pod."""
    argument_lists = [
        [word for found in file.arguments_of("CMD") for word in found.words()]
        for file in containers.read_all(REPOSITORY)
    ]
    argument_lists += [
        container["args"]
        for kustomization in kustomize.whole_kustomizations(KUBERNETES)
        for document in kustomize.render(kustomization)
        if document["kind"] in ("Deployment", "Job")
        for container in document["spec"]["template"]["spec"]["containers"]
    ]
    return [arguments[1:] for arguments in argument_lists if arguments[0] == name]


def options_of(command: click.Command, arguments: list[str]) -> dict[str, Any]:
    return command.make_context(command.name, list(arguments)).params


def test_serve_understands_every_command() -> None:
    found = commands_of("serve")
    assert len(found) == 6, json.dumps(found)
    for arguments in found:
        options = options_of(serve.run, arguments)
        assert str(options["models"]) == "/models"
        assert options["allow_root"] == ("/data",)
        assert str(options["state"]) == "/state"


def test_train_understands_every_command() -> None:
    train_command = pytest.importorskip("topb_trainer.commands.train", exc_type=ImportError)
    found = [arguments for arguments in commands_of("train") if arguments != ["--help"]]
    assert len(found) == 2, json.dumps(found)
    devices = set()
    for arguments in found:
        options = train_command._parse(arguments)
        assert str(options.out) == "/models"
        devices.add(options.config.device)
    assert devices == {"cpu", "cuda"}


def test_probes_may_ask_for_what_the_server_answers_for() -> None:
    assert {"", server.SELECTION_SERVICE, server.MODEL_SERVICE} == servers.HEALTH_SERVICES


def test_the_checks_know_the_variable_that_names_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(servers.CATALOG_VARIABLE, "postgresql+psycopg://db/topb")
    options = options_of(serve.run, ["--models=/models"])
    assert options["catalog_url"] == "postgresql+psycopg://db/topb"


def test_the_checks_know_how_long_the_server_waits_for_ended_calls() -> None:
    assert servers.CANCEL_SECONDS == server._CANCEL_SECONDS
