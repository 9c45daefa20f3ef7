from __future__ import annotations

import pytest

from topb_scorer.commands.serve import _parser

pytestmark = pytest.mark.scorer

URL = "postgresql+psycopg://topb:secret@db/topb"


def test_the_catalog_is_the_environments_unless_an_option_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOPB_CATALOG_URL", raising=False)
    assert _parser().parse_args(["--models", "m"]).catalog_url == ""
    monkeypatch.setenv("TOPB_CATALOG_URL", URL)
    assert _parser().parse_args(["--models", "m"]).catalog_url == URL
    assert _parser().parse_args(["--models", "m", "--catalog-url=sqlite://"]).catalog_url == "sqlite://"


def test_the_help_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPB_CATALOG_URL", URL)
    assert "secret" not in _parser().format_help()
