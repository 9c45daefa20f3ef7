from __future__ import annotations

import pytest

from support.command_line import topb
from topb_scorer.commands.serve import run

pytestmark = pytest.mark.scorer

URL = "postgresql+psycopg://topb:secret@db/topb"


def catalog_url(*arguments: str) -> str:
    url: str = run.make_context("serve", ["--models", "m", *arguments]).params["catalog_url"]
    return url


def test_the_catalog_option_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOPB_CATALOG_URL", raising=False)
    assert catalog_url() == ""
    monkeypatch.setenv("TOPB_CATALOG_URL", URL)
    assert catalog_url() == URL
    assert catalog_url("--catalog-url=sqlite://") == "sqlite://"


def test_the_help_does_not_show_the_password_of_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPB_CATALOG_URL", URL)
    shown = topb("serve", "--help").printed
    assert "TOPB_CATALOG_URL" in shown
    assert "secret" not in shown
