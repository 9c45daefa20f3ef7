from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from support.bundles import write_bundle
from support.command_line import Outcome, topb
from topb_scorer.bundle import open_bundle
from topb_scorer.jobs.record import NewSelection, SelectionRecord
from topb_scorer.jobs.state_directory import StateDirectory
from topb_scorer.scoring.encoded_rows import EncodedRows
from topb_scorer.scoring.housekeeping import Pruning, plan_pruning, stored_shards
from topb_scorer.scoring.score_log import ScoreLog
from topb_scorer.scoring.scored_rows import scored_rows

pytestmark = pytest.mark.scorer

DAY = 86400


class V:
    """A shard."""

    identity = "v"


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    """Create three shards of model a, one of which also has features, and two of model b, a day apart."""
    state = StateDirectory.open(tmp_path / "state")
    for model, names in (("a", "uvw"), ("b", "xy")):
        for name in names:
            commit(ScoreLog(state.path / "scores" / model), name)
    bundle = open_bundle(write_bundle(tmp_path))
    bundle.manifest.model_id, bundle.manifest.encoder_id = "a", "e"
    logs = state.model_logs(bundle, needs_features=True)
    outputs = {"features": np.zeros((3, 8), np.float32)}
    rows = EncodedRows(V(), ["1", "2", "3"], np.zeros((3, 16), np.uint8), outputs, {}, ends_shard=True)
    list(logs.features.keep(iter([rows]), bundle))
    now = time.time()
    for age, name in enumerate("uvwxy"):
        for path in shards(state, name):
            os.utime(path, (now - age * DAY - 60, now - age * DAY - 60))
    return state


def commit(log: ScoreLog, name: str) -> None:
    outputs = {"probabilities": np.full((3, 2), 0.5, np.float32), "score": np.zeros(3, np.float32)}
    log.commit(name, [scored_rows(["1", "2", "3"], outputs, {})])


def shards(state: StateDirectory, name: str = "[a-z]") -> list[Path]:
    return sorted(
        path for kind in ("scores", "features") for path in state.path.glob(f"{kind}/*/*/{name}-*.parquet")
    )


def names_left(state: StateDirectory) -> set[str]:
    return {path.name.rpartition("-")[0] for path in shards(state)}


def selection(state: StateDirectory, *, pool_uri: str = "/pool") -> SelectionRecord:
    """Create a selection by model a."""
    return state.catalog.create(NewSelection("", "a", "margin", 1, pool_uri, False, b""))


def run_on(state: StateDirectory, action: str, *options: str) -> Outcome:
    return topb("scores", action, "--state", state.path, *options)


def test_scores_are_listed_by_model(state: StateDirectory) -> None:
    lines = run_on(state, "list").printed.splitlines()
    shown = [line.split()[:4] for line in lines[1:]]
    assert shown == [["features", "e", "1", "3"], ["scores", "a", "3", "9"], ["scores", "b", "2", "6"]]
    (listed,) = json.loads(run_on(state, "list", "--json", "--model", "b").printed)
    sizes = [path.stat().st_size for path in (*shards(state, "x"), *shards(state, "y"))]
    assert (listed["log"], listed["shards"], listed["rows"], listed["bytes"]) == ("b", 2, 6, sum(sizes))
    assert listed["last_used"] - listed["first_used"] == pytest.approx(DAY, abs=5)


def test_incomplete_files_do_not_stop_a_listing_of_scores(state: StateDirectory) -> None:
    (shards(state, "u")[0].parent / ".unpublished-1.parquet").write_bytes(b"half")
    shards(state, "x")[0].write_bytes(b"torn")
    assert "3 (1 unreadable)" in run_on(state, "list").printed


def test_unaltered_scores_pass_verification(state: StateDirectory) -> None:
    assert run_on(state, "verify") == Outcome(0, "6 shards, 0 altered\n", "")


def test_altered_shards_are_reported_and_only_removed_on_request(state: StateDirectory) -> None:
    torn, altered = shards(state, "u")[0], shards(state, "y")[0]
    torn.write_bytes(torn.read_bytes()[:-1])
    content = bytearray(altered.read_bytes())
    content[20] ^= 1
    altered.write_bytes(content)
    outcome = run_on(state, "verify")
    assert outcome.exit_code == 1
    assert outcome.out.splitlines() == [f"altered: {torn}", f"altered: {altered}", "6 shards, 2 altered"]
    outcome = run_on(state, "verify", "--model", "b", "--json", "--discard")
    assert outcome.exit_code == 1
    assert [shard["identity"] for shard in json.loads(outcome.out)["altered"]] == ["y"]
    assert names_left(state) == set("uvwx")
    assert run_on(state, "verify", "--model", "b").exit_code == 0


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], "uvwxy"),
        (["--model", "a"], "vxy"),
        (["--model", "e"], "uvwxy"),
        (["--older-than", "1.5"], "uv"),
        (["--older-than", "1.5", "--model", "b"], "uvw"),
        (["--older-than", "0"], ""),
        (["--max-bytes", "0"], ""),
        (["--max-bytes", "1000000"], "uvwxy"),
    ],
)
def test_pruning_removes_by_model_and_age(state: StateDirectory, options: list[str], left: str) -> None:
    assert run_on(state, "prune", *options).exit_code == 0
    assert names_left(state) == set(left)


def test_pruning_to_a_size_removes_the_oldest_first(state: StateDirectory) -> None:
    sizes = {path: path.stat().st_size for path in shards(state)}
    size_left = sum(sizes.values()) - sizes[shards(state, "y")[0]] - 1
    run_on(state, "prune", "--max-bytes", str(size_left))
    assert names_left(state) == set("uvw")
    assert sum(path.stat().st_size for path in shards(state)) <= size_left


def test_pruning_to_a_size_does_not_count_what_an_open_selection_spares(state: StateDirectory) -> None:
    """The oldest shards belong to a model in use, so younger ones of other models have to go."""
    shards_by_age = sorted(stored_shards(state.path), key=lambda shard: shard.used)
    in_use = shards_by_age[0].log
    others = [shard for shard in shards_by_age if shard.log != in_use]
    total = sum(shard.size for shard in shards_by_age)

    def plan(max_bytes: int) -> Pruning:
        return plan_pruning(state.path, max_bytes=max_bytes, open_models={in_use}, has_ended=lambda _: False)

    assert plan(total - 1).shards == others[:1]
    assert sum(shard.size for shard in shards_by_age) - plan(total - 1).bytes <= total - 1
    assert plan(0).shards == others
    assert len(plan(0).spared) == len(shards_by_age) - len(others)


def test_a_dry_run_reports_and_removes_no_scores(state: StateDirectory) -> None:
    before = [path for path in state.path.rglob("*") if "sqlite" not in path.name]
    told = json.loads(run_on(state, "prune", "--model", "a", "--dry-run", "--json").printed)
    assert [(shard["log"], shard["identity"]) for shard in told["shards"]] == [
        ("a", "w"),
        ("a", "v"),
        ("a", "u"),
    ]
    assert told["bytes"] == sum(path.stat().st_size for path in shards(state) if "/a/" in str(path))
    assert [path for path in state.path.rglob("*") if "sqlite" not in path.name] == before


def test_pruning_keeps_scores_that_an_open_selection_may_need(state: StateDirectory) -> None:
    record = selection(state)
    told = run_on(state, "prune", "--max-bytes", "0").printed
    assert names_left(state) == set("uvw")
    assert "kept 4 shards of a, e that open selections may need" in told
    assert state.catalog.claim(record.id, "server", 30)
    run_on(state, "prune", "--model", "a")
    assert names_left(state) == set("uvw")
    assert state.catalog.succeed(record.id, "server")
    run_on(state, "prune", "--model", "a")
    assert names_left(state) == set("v")
    run_on(state, "prune", "--model", "e")
    assert names_left(state) == set()


def test_only_streams_whose_selections_have_ended_are_removed(state: StateDirectory) -> None:
    ended, waiting = selection(state, pool_uri=""), selection(state, pool_uri="")
    for id_ in (ended.id, waiting.id, "unheard-of"):
        commit(state.stream_logs(id_, needs_features=True).scores, "0")
    assert state.catalog.claim(ended.id, "server", 30)
    assert state.catalog.succeed(ended.id, "server")
    told = run_on(state, "prune").printed
    assert {path.name for path in (state.path / "streams").iterdir()} == {waiting.id, "unheard-of"}
    assert "1 ended streams" in told


def test_half_written_files_are_removed_once_they_are_old(state: StateDirectory) -> None:
    folders = [shards(state, "u")[0].parent, state.path / "results"]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / ".unpublished-old.parquet").write_bytes(b"half")
        os.utime(folder / ".unpublished-old.parquet", (0, 0))
        (folder / ".unpublished-new.parquet").write_bytes(b"half")
    run_on(state, "prune")
    for folder in folders:
        left = {path.name for path in folder.iterdir() if path.name.startswith(".")}
        assert left == {".unpublished-new.parquet"}
    assert names_left(state) == set("uvwxy")


def test_commands_on_an_empty_state_directory_show_nothing(tmp_path: Path) -> None:
    StateDirectory.open(tmp_path)
    printed = [topb("scores", action, "--state", tmp_path).printed for action in ("list", "verify", "prune")]
    assert printed[:2] == ["No scores and no features.\n", "0 shards, 0 altered\n"]
    assert printed[2].startswith("deleted 0 shards")


def test_the_catalog_url_can_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPB_CATALOG_URL", f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    state = StateDirectory.open(tmp_path / "state", f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    commit(ScoreLog(state.path / "scores" / "a"), "v")
    selection(state)
    outcome = topb("scores", "prune", "--state", state.path, "--model", "a")
    assert "kept 1 shards of a that open selections may need" in outcome.out
