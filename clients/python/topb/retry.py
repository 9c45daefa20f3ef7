"""How often a call is made again whose server went away, and after how long."""

from __future__ import annotations

import logging
import math
import random
from dataclasses import dataclass

from topb._deadline import Deadline
from topb.errors import InvalidRequestError, ServerUnavailableError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How to go on where no server answers, or the one that did goes away.

    Only calls that are safe to repeat are: those about selections, which their request id makes so. No
    other error than ServerUnavailableError leads to another try.
    """

    attempts: int = 10
    """Tries in a row that get no further, the first one among them, before the error is raised. A stream
    gets further with each chunk that the server acknowledges, a pool at a URI with each row it reads."""
    initial_delay: float = 0.2
    """Seconds before the second try; doubles from try to try, and up to half is left off at random."""
    maximum_delay: float = 20.0
    """The most seconds that it grows to. A server that asks for more is given more."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.initial_delay <= self.maximum_delay < math.inf:
            raise InvalidRequestError(
                f"{self}: expected attempts of at least 1, and 0 ≤ initial_delay ≤ maximum_delay",
                reason="RETRY_POLICY_INVALID",
            )


class Retries:
    """The tries of one call, until its deadline at most."""

    def __init__(self, policy: RetryPolicy | None, deadline: Deadline) -> None:
        self._policy = policy
        self._deadline = deadline
        self._failures = 0
        self._reached = 0

    def delay_after(self, error: ServerUnavailableError, *, reached: int = 0) -> float:
        """Seconds to wait before the next try.

        Args:
            error: with which the last try ended.
            reached: how far the call has come, in steps of which there are only so many. Where that is
                further than ever, tries are counted anew.

        Raises:
            ServerUnavailableError: the error, where there is to be no other try.
        """
        if reached > self._reached:
            self._reached, self._failures = reached, 0
        self._failures += 1
        policy = self._policy
        if policy is None or self._failures >= policy.attempts:
            raise error
        # The exponent is bounded: a float overflows at 1024.
        backoff = min(policy.initial_delay * 2.0 ** min(self._failures - 1, 64), policy.maximum_delay)
        # Clients that lost one server at the same moment do not come back at the same moment.
        delay = max(backoff * random.uniform(0.5, 1.0), error.retry_delay or 0.0)
        left = self._deadline.left
        if left is not None and delay >= left:
            raise error
        _log.warning("%s Trying again in %.1f s (try %d).", error, delay, self._failures + 1)
        return delay
