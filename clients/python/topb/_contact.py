"""Remember whether the server of a connection was ever reached."""

from __future__ import annotations

from dataclasses import dataclass

UNREACHABLE = "SERVER_UNREACHABLE"
"""The reason of the errors of calls for which no connection could be made."""


@dataclass
class Contact:
    """Whether any call of a connection has reached the server.

    A server that was reached comes back, so calls wait for it. One that never was is probably not at this
    address.
    """

    made: bool = False
