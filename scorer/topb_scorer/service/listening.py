"""Listen on the addresses of a server."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from topb_scorer.errors import ListenError


def host_and_port(address: str) -> tuple[str, int]:
    """Split HOST:PORT. An IPv6 address has brackets.

    Raises:
        ValueError: there is no port.
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def check_free(address: str) -> None:
    """Check that no other process listens on an address. Other faults are left to the server that listens.

    gRPC would write a line of its own to standard error before it reports the fault.

    Raises:
        OSError: every address that the host stands for is in use, or is not of this machine.
    """
    with suppress(ValueError, OverflowError, socket.gaierror):
        host, port = host_and_port(address)
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        faults = [_fault(family, where) for family, *_, where in resolved]
        if None not in faults:
            raise OSError(faults[0], os.strerror(faults[0] or 0))


def listen_failed(address: str, error: Exception, *, option: str, purpose: str = "") -> ListenError:
    """Return the error for the address of an option on which the server cannot listen."""
    fault = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ListenError(
        f"cannot listen on {address}{purpose}: {fault}; choose another {option} address",
        reason="LISTEN_FAILED",
    )


def _fault(family: int, where: tuple[object, ...]) -> int | None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As gRPC does, to listen again at once after a restart.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(where)
            probe.listen()
        except OSError as error:
            return error.errno or errno.EADDRINUSE
    return None
