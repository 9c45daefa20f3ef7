from __future__ import annotations

import pytest
import torch

from topb_trainer.runtime.seeding import derived_seed, generator, reproducible

CPU = torch.device("cpu")


def test_each_purpose_has_its_own_seed_that_never_changes() -> None:
    assert derived_seed(0, "task") == 1_586_313_154_182_942_576
    assert len({derived_seed(seed, what, n) for seed in range(5) for what in "ab" for n in range(5)}) == 50
    assert 0 <= derived_seed(2**64 - 1, "x") < 2**63


def test_random_numbers_are_seeded_inside_the_context_and_unchanged_outside() -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with reproducible(5, CPU):
        inside = torch.rand(2)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(2), expected)
    with reproducible(5, CPU):
        assert torch.equal(torch.rand(2), inside)
    assert torch.equal(inside, torch.rand(2, generator=generator(5)))


def test_threads_and_random_state_are_restored_even_after_an_error() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()

    def fail() -> None:
        assert torch.get_num_threads() == threads + 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), reproducible(5, CPU, threads=threads + 1):
        fail()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
