"""Decide how often, and after which delays, a call is retried if its server goes away."""

from __future__ import annotations

import logging
import math
import random
from dataclasses import dataclass

from topb._contact import UNREACHABLE, Contact
from topb._deadline import Deadline
from topb.errors import InvalidRequestError, ServerUnavailableError

_log = logging.getLogger("topb.retry")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How to retry calls when no server answers, or the server goes away.

    Only calls about selections are retried: their request id makes that safe. Only ServerUnavailableError
    leads to a retry. If the client has never reached a server at the address, the first attempt is the last.
    """

    attempts: int = 10
    """Consecutive attempts without progress, including the first, before the error is raised. A stream makes
    progress if the server acknowledges a chunk; a selection from a pool at a URI, if the server reads a
    row."""
    initial_delay: float = 0.2
    """Seconds before the second attempt. The delay doubles with each attempt; up to half of it is subtracted
    at random."""
    maximum_delay: float = 20.0
    """Upper bound of the delay in seconds. If the server asks for a longer delay, that one is used."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.initial_delay <= self.maximum_delay < math.inf:
            raise InvalidRequestError(
                f"{self}: expected attempts of at least 1, and 0 ≤ initial_delay ≤ maximum_delay",
                reason="RETRY_POLICY_INVALID",
            )


class Retries:
    """Counts the attempts of one call, and decides whether and when to make the next one."""

    def __init__(self, policy: RetryPolicy | None, deadline: Deadline, contact: Contact) -> None:
        self._policy = policy
        self._deadline = deadline
        self._contact = contact
        self._failures = 0
        self._reached = 0

    def delay_after(self, error: ServerUnavailableError, *, reached: int = 0) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            error: The error of the last attempt.
            reached: Number of steps that the call has completed; the total must be finite. If the number has
                increased, the attempts are counted from zero again.

        Raises:
            ServerUnavailableError: The error itself, if there is no next attempt.
        """
        if reached > self._reached:
            self._reached, self._failures = reached, 0
        self._failures += 1
        self._contact.made = self._contact.made or error.reason != UNREACHABLE
        policy = self._policy
        if policy is None or self._failures >= policy.attempts or not self._contact.made:
            raise error
        # The exponent is bounded because a float overflows at 2**1024.
        backoff = min(policy.initial_delay * 2.0 ** min(self._failures - 1, 64), policy.maximum_delay)
        # The delay is random because clients that lost a server together should not return together.
        delay = max(backoff * random.uniform(0.5, 1.0), error.retry_delay or 0.0)
        left = self._deadline.left
        if left is not None and delay >= left:
            raise error
        _log.warning("%s Retrying in %.1f s (attempt %d).", error, delay, self._failures + 1)
        return delay
