from __future__ import annotations

import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topb_scorer.pools import digests_by_id
from topb_scorer.pools.digests_by_id import DigestsById
from topb_scorer.pools.pool import NO_DIGEST

pytestmark = pytest.mark.scorer

IDS = st.sampled_from(["", "a", "b", "ä", "image-1", "a\0"])
DIGESTS = st.sampled_from([NO_DIGEST, bytes(range(16)), b"\xff" * 16])
PAIRS = st.lists(st.tuples(IDS, DIGESTS))


@pytest.mark.parametrize("hashes", ["different", "equal"])
@given(pairs=PAIRS, others=PAIRS)
def test_it_is_the_same_mapping_as_a_dictionary(
    hashes: str, pairs: list[tuple[str, bytes]], others: list[tuple[str, bytes]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if hashes == "equal":
            patch.setattr(digests_by_id, "hash", lambda _: 7, raising=False)
        mapping, other = (DigestsById.pairs([i for i, _ in p], [d for _, d in p]) for p in (pairs, others))
        assert mapping == dict(pairs)
        assert DigestsById.of(dict(pairs)) == dict(pairs)
        assert mapping.updated(other) == dict(pairs) | dict(others)
        names = list(mapping)
        asked = ["b", *names, "nowhere", *names]
        rows = [names.index(id_) if id_ in names else -1 for id_ in asked]
        assert mapping.rows_of(asked).tolist() == rows


def test_ids_without_digests_have_none() -> None:
    assert DigestsById(pa.chunked_array([["a"], ["b", "a"]])) == {"b": NO_DIGEST, "a": NO_DIGEST}
    assert DigestsById.pairs(["a", "b"], [b"", bytes(range(16))]) == {"a": NO_DIGEST, "b": bytes(range(16))}


def test_an_id_takes_little_memory_beyond_its_characters() -> None:
    count, id_bytes = 200_000, 24
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    mapping = DigestsById.pairs(f"image-{number:018d}" for number in range(count))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(mapping) == count
    # The hashes, the order and the digests; in Arrow, the ids and their offsets.
    assert held < count * 40
    assert peak < count * 80
    assert pa.total_allocated_bytes() - arrow < count * (id_bytes + 16)
