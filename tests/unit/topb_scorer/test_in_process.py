from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.bundles import write_bundle
from support.images import encode, random_image, random_pool, write_parquet
from topb.pools import Pool, PoolFormatName
from topb.progress import Progress
from topb_scorer.bundle import Bundle
from topb_scorer.errors import (
    DeviceError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    ScorerError,
)
from topb_scorer.in_process import select_batch
from topb_scorer.pools import content_digest
from topb_scorer.pools.pool import NO_DIGEST

pytestmark = pytest.mark.scorer


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "pool.parquet", random_pool(80))


def test_select_in_process_needs_no_server(bundle: Bundle, pool: Path) -> None:
    result = select_batch(str(pool), 12, bundle=bundle.path, seed=9)
    assert len(result.picks) == 12
    assert result.accounts.read == result.accounts.scored == 80
    assert (result.model, result.strategy, result.seed, result.budget) == (bundle.model_id, "aalu", 9, 12)
    assert result.elapsed_seconds > 0


def test_a_file_uri_and_the_batch_size_do_not_change_the_picks(bundle: Bundle, pool: Path) -> None:
    first = select_batch(str(pool), 12, bundle=str(bundle.path), strategy="entropy")
    second = select_batch(f"file://{pool}", 12, bundle=bundle.path, strategy="entropy", batch_size=3)
    assert first.picks == second.picks


def test_excluded_ids_can_be_a_list_or_a_file(bundle: Bundle, pool: Path, tmp_path: Path) -> None:
    all_ids = select_batch(str(pool), 80, bundle=bundle.path).ids
    labelled = tmp_path / "labelled.parquet"
    pq.write_table(pa.table({"key": [*all_ids[5:10], None]}), labelled)
    result = select_batch(
        str(pool),
        80,
        bundle=bundle.path,
        exclude=iter(all_ids[:5]),
        exclude_uri=f"file://{labelled}",
        exclude_column="key",
    )
    assert result.ids == all_ids[10:]
    after = select_batch(str(pool), 80, bundle=bundle.path, exclude=result)
    assert sorted(after.ids) == sorted(all_ids[:10])
    assert (result.accounts.excluded, result.accounts.excluded_unmatched) == (10, 0)


@pytest.mark.parametrize("strategy", ["aalu", "core_set"])
def test_images_that_the_model_was_trained_on_are_left_out_unless_they_are_asked_for(
    strategy: str, pool: Path, tmp_path: Path
) -> None:
    rows = random_pool(80)
    known = {f"class/{id_}": content_digest(image) for id_, image in rows[:3]}
    bundle = write_bundle(tmp_path / "bundles", labelled={**known, rows[3][0]: None, "elsewhere": None})
    others = select_batch(str(pool), 80, bundle=bundle, strategy=strategy, exclude=[rows[3][0], rows[4][0]])
    assert sorted(others.ids) == [id_ for id_, _ in rows[5:]]
    accounts = others.accounts
    assert (accounts.excluded, accounts.excluded_labelled, accounts.labelled_unmatched) == (5, 4, 1)
    everything = select_batch(str(pool), 80, bundle=bundle, strategy=strategy, include_labelled=True)
    assert (len(everything.picks), everything.accounts.excluded) == (80, 0)


@pytest.mark.parametrize("strategy", ["aalu", "core_set"])
def test_an_image_is_excluded_by_its_content_under_another_id(
    strategy: str, bundle: Bundle, pool: Path, tmp_path: Path
) -> None:
    rows = random_pool(80)
    labelled = tmp_path / "labelled.parquet"
    digests = pa.array([content_digest(image) for _, image in rows[:3]], pa.binary(16))
    pq.write_table(pa.table({"id": ["moved/0", "moved/1", rows[2][0]], "digest": digests}), labelled)
    absent = {"elsewhere": content_digest(b"not in the pool"), "nowhere": NO_DIGEST}
    result = select_batch(
        str(pool), 80, bundle=bundle.path, strategy=strategy, exclude=absent, exclude_uri=str(labelled)
    )
    assert sorted(result.ids) == [id_ for id_, _ in rows[3:]]
    assert (result.accounts.excluded, result.accounts.excluded_unmatched) == (3, 2)


def test_column_names_and_the_seed_are_applied(bundle: Bundle, tmp_path: Path) -> None:
    for row in range(30):
        (tmp_path / f"{row}.png").write_bytes(encode(random_image(row)))
    table = pa.table({"key": range(30), "file": [f"{row}.png" for row in range(29)] + ["missing.png"]})
    pq.write_table(table, tmp_path / "pool.parquet")
    pool = Pool(tmp_path / "pool.parquet", id_column="key", path_column="file")
    first, again, other = (
        select_batch(pool, 30, bundle=bundle.path, strategy="random", seed=seed) for seed in (1, 1, 2)
    )
    assert first.ids == again.ids != other.ids
    assert first.accounts.skipped == {"FILE_MISSING": 1}


def test_an_empty_folder_with_its_format_named_gives_an_empty_result(
    bundle: Bundle, pool_folder: Path
) -> None:
    for format_ in get_args(PoolFormatName):
        result = select_batch(Pool(pool_folder, format=format_), 3, bundle=bundle.path)
        assert result.picks == ()
        assert result.fell_short


def test_the_last_progress_covers_the_whole_pool(bundle: Bundle, pool: Path) -> None:
    told: list[Progress] = []
    select_batch(str(pool), 1, bundle=bundle.path, batch_size=16, progress=told.append)
    assert [progress.read for progress in told] == sorted(progress.read for progress in told)
    assert told[-1].read == told[-1].total == 80


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"budget": 0}, InvalidRequestError, "BUDGET_NOT_POSITIVE"),
        ({"budget": 10**9}, LimitExceededError, "BUDGET_TOO_LARGE"),
        ({"strategy": "bald"}, InvalidRequestError, "STRATEGY_UNKNOWN"),
        ({"strategy_options": {"k": "1"}}, InvalidRequestError, "STRATEGY_OPTION_UNKNOWN"),
        ({"layout": {"format": "zip"}}, InvalidRequestError, "POOL_FORMAT"),
        ({"pool": "nowhere"}, NotFoundError, "POOL_NOT_FOUND"),
        ({"pool": "https://127.0.0.1/pool"}, InvalidRequestError, "POOL_URI"),
        ({"bundle": "nowhere"}, NotFoundError, "BUNDLE_NOT_FOUND"),
        ({"layout": {"id_column": "key"}}, InvalidRequestError, "POOL_COLUMN_MISSING"),
        ({"exclude_uri": "nowhere.parquet"}, InvalidRequestError, "EXCLUSION_NOT_FOUND"),
        ({"device": "tpu"}, DeviceError, "DEVICE_UNKNOWN"),
        ({"batch_size": 1}, InvalidRequestError, "BATCH_SIZE_TOO_SMALL"),
    ],
)
def test_an_unusable_request_is_an_error_with_its_reason(
    bundle: Bundle, pool: Path, options: dict[str, Any], error: type[ScorerError], reason: str
) -> None:
    described = Pool(pool, **options.get("layout", {}))
    arguments = {"pool": described, "budget": 5, "bundle": bundle.path, **options}
    arguments.pop("layout", None)
    with pytest.raises(error) as caught:
        select_batch(**arguments)
    assert caught.value.reason == reason


def test_the_select_command_finds_the_in_process_engine() -> None:
    (entry,) = entry_points(group="topb.engines", name="in_process")
    assert entry.load() is select_batch
