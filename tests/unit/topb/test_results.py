from __future__ import annotations

import dataclasses
import json

import pytest

import topb

pytestmark = pytest.mark.sdk

PICKS = (topb.Pick("b", 1, 0.9, 2, 0.5, 1.0), topb.Pick("a", 2, 0.8, 0, 0.25, 1.5))
ACCOUNTS = topb.Accounts(read=5, scored=3, skipped={"Z": 1, "A": 1})
COLUMNS = [
    "id",
    "rank",
    "score",
    "predicted_class",
    "probability",
    "entropy",
    "radius",
    "predicted_class_name",
]
RESULT = topb.SelectionResult(PICKS, ACCOUNTS, "m", "aalu", 3, 4, 1.25, pool="/p", request_id="r")


def test_results_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RESULT.budget = 5
    with pytest.raises(TypeError):
        RESULT.accounts.skipped["A"] = 2


def test_ids_are_in_rank_order_and_fell_short_is_set_for_a_short_result():
    assert RESULT.ids == ("b", "a")
    assert RESULT.fell_short
    assert not dataclasses.replace(RESULT, budget=2).fell_short


def test_accounts_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="do not add up"):
        dataclasses.replace(ACCOUNTS, read=4)


def test_json_holds_every_field_of_a_result():
    assert json.loads(RESULT.to_json()) == {
        "selection": "",
        "model": "m",
        "strategy": "aalu",
        "seed": 3,
        "pool": "/p",
        "request_id": "r",
        "budget": 4,
        "fell_short": True,
        "elapsed_seconds": 1.25,
        "accounts": {
            "read": 5,
            "scored": 3,
            "skipped": {"A": 1, "Z": 1},
            "duplicate": 0,
            "excluded": 0,
            "excluded_unmatched": 0,
            "excluded_labelled": 0,
            "labelled_unmatched": 0,
            "skipped_examples": [],
        },
        "measures": {},
        "picks": [dataclasses.asdict(pick) for pick in PICKS],
    }


@pytest.mark.parametrize("picks", [PICKS, ()], ids=["some", "none"])
def test_an_arrow_table_has_the_picks_with_fixed_types(picks):
    pytest.importorskip("pyarrow")
    table = dataclasses.replace(RESULT, picks=picks).to_arrow()
    types = " ".join(str(field.type) for field in table.schema)
    assert types == "string int64 double int32 float double double string"
    assert table.column_names == COLUMNS
    assert table.column("id").to_pylist() == [pick.id for pick in picks]


def test_a_data_frame_has_the_picks():
    pytest.importorskip("pandas")
    frame = RESULT.to_pandas()
    assert list(frame.columns) == COLUMNS
    assert frame["id"].tolist() == ["b", "a"]
    assert frame.attrs == RESULT.provenance


def test_a_result_is_a_sequence_of_its_picks():
    assert (len(RESULT), list(RESULT)) == (2, list(PICKS))
    assert (RESULT[-1], RESULT[:1]) == (PICKS[1], PICKS[:1])
    assert PICKS[1] in RESULT


def test_a_result_with_many_picks_has_a_short_repr():
    picks = tuple(dataclasses.replace(PICKS[0], id=f"image-{rank}", rank=rank) for rank in range(1, 101))
    text = repr(dataclasses.replace(RESULT, picks=picks))
    assert text == (
        "<SelectionResult of 100 picks ('image-1', 'image-2', 'image-3', …): model='m', strategy='aalu', "
        "seed=3, pool='/p', request_id='r'>"
    )
