from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

import topb
from topb._contact import Contact
from topb._deadline import Deadline
from topb._retry import Retries

pytestmark = pytest.mark.sdk

POLICY = topb.RetryPolicy(attempts=5, initial_delay=1.0, maximum_delay=4.0)
NEVER = Deadline(None)


def unavailable(retry_delay=None):
    return topb.ServerUnavailableError("shutting down", reason="SERVER_DRAINING", retry_delay=retry_delay)


def delays(retries, count, **progress):
    return [retries.delay_after(unavailable(), **progress) for _ in range(count)]


def test_delays_double_up_to_the_maximum_and_up_to_half_is_subtracted():
    for _ in range(20):
        for delay, full in zip(delays(Retries(POLICY, NEVER, Contact()), 4), [1, 2, 4, 4], strict=True):
            assert full / 2 <= delay <= full


def test_attempts_are_limited_and_progress_resets_their_count():
    retries = Retries(POLICY, NEVER, Contact())
    delays(retries, 4)
    delays(retries, 4, reached=1)
    delays(retries, 4, reached=2)
    error = unavailable()
    with pytest.raises(topb.ServerUnavailableError) as caught:
        retries.delay_after(error, reached=1)
    assert caught.value is error


def test_a_long_run_of_attempts_does_not_overflow():
    retries = Retries(topb.RetryPolicy(attempts=5000), NEVER, Contact())
    assert delays(retries, 4000)[-1] <= 20


def test_without_a_policy_there_is_no_retry():
    with pytest.raises(topb.ServerUnavailableError):
        Retries(None, NEVER, Contact()).delay_after(unavailable())


def test_the_server_may_ask_for_a_longer_delay():
    assert Retries(POLICY, NEVER, Contact()).delay_after(unavailable(retry_delay=60)) == 60
    assert Retries(POLICY, NEVER, Contact()).delay_after(unavailable(retry_delay=0.01)) >= 0.5


def test_no_attempt_is_made_after_the_deadline():
    deadline = SimpleNamespace(left=59.0)
    with pytest.raises(topb.ServerUnavailableError) as caught:
        Retries(POLICY, deadline, Contact()).delay_after(unavailable(retry_delay=60))
    assert caught.value.retry_delay == 60
    deadline.left = 61.0
    assert Retries(POLICY, deadline, Contact()).delay_after(unavailable(retry_delay=60)) == 60


def test_a_deadline_shortens_waits_to_the_remaining_time():
    assert NEVER.left is None
    assert NEVER.shortened(5) == 5
    deadline = Deadline(60)
    assert 50 < deadline.left <= 60
    assert deadline.shortened(5) == 5
    assert deadline.shortened(math.inf) <= 60
    assert Deadline(1e-9).left == 0


@pytest.mark.parametrize(
    "policy", [{"attempts": 0}, {"initial_delay": -1.0}, {"initial_delay": 9.0, "maximum_delay": 1.0}]
)
def test_an_invalid_policy_is_refused(policy):
    with pytest.raises(topb.InvalidRequestError, match="attempts of at least 1"):
        topb.RetryPolicy(**policy)


def unreachable():
    return topb.ServerUnavailableError("connection refused", reason="SERVER_UNREACHABLE")


def test_a_server_that_was_never_reached_is_tried_once():
    error = unreachable()
    with pytest.raises(topb.ServerUnavailableError) as caught:
        Retries(POLICY, NEVER, Contact()).delay_after(error)
    assert caught.value is error


def test_a_server_that_was_reached_once_is_waited_for():
    contact = Contact()
    Retries(POLICY, NEVER, contact).delay_after(unavailable())
    Retries(POLICY, NEVER, contact).delay_after(unreachable())
    Retries(POLICY, NEVER, Contact(made=True)).delay_after(unreachable())
