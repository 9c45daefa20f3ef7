from __future__ import annotations

import json

import pytest

from support.command_line import topb
from topb.v1 import model_pb2

pytestmark = pytest.mark.sdk


@pytest.fixture
def described(server, server_info_message, model_message):
    server.get_server_info = lambda _request, _context: server_info_message
    server.list_models = lambda _request, _context: model_pb2.ListModelsResponse(models=[model_message])
    return server


def test_info_shows_a_server_as_text(described):
    assert topb("info", "--server", described.address).printed.splitlines() == [
        f"topb 0.1.0 at {described.address}",
        "  devices     cpu",
        "  strategies  aalu, random",
        "  limits      budget 1,000,000; 2 selections at once; chunks of 4 MiB and 16,384 images",
        "              images of 20 MiB and 50,000,000 pixels; 64 in one call to score",
        "",
        "model               method  round  image  classes  labelled  accuracy  created",
        "0123456789abcdef *  aalu        2  32×48        3     4,500     62.5%  2025-03-04 05:06",
        "",
        "* the default model",
    ]


def test_info_names_the_models_that_serve_a_strategy_unless_all_do(described, model_message):
    other = model_pb2.Model(bundle={"model_id": "fedcba9876543210"}, served_strategies=["random"])
    model_message.served_strategies[:] = ["aalu", "random"]
    models = [model_message, other]
    described.list_models = lambda _request, _context: model_pb2.ListModelsResponse(models=models)
    printed = topb("info", "--server", described.address).printed
    assert "  strategies  aalu (0123456789abcdef), random\n" in printed
    del models[0]
    assert "  strategies  aalu (no model), random\n" in topb("info", "--server", described.address).printed


def test_info_shows_a_server_as_json(described):
    shown = json.loads(topb("info", "--server", described.address, "--json").printed)
    assert shown["server"]["limits"]["max_budget"] == 1_000_000
    assert shown["models"][0]["id"] == "0123456789abcdef"
    assert shown["models"][0]["create_time"] == "2025-03-04T05:06:07+00:00"
    assert shown["models"][0]["configuration"] == {"task": {"epochs": 3.0}}


def test_info_reports_a_server_without_models(described):
    described.list_models = lambda _request, _context: model_pb2.ListModelsResponse()
    assert topb("info", "--server", described.address).printed.endswith("No models.\n")


def test_the_server_address_can_come_from_the_environment(described, monkeypatch):
    monkeypatch.setenv("TOPB_SERVER", described.address)
    assert topb("info").printed.startswith(f"topb 0.1.0 at {described.address}\n")
