"""The connection to a server: its options, and TLS."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from topb.errors import InvalidRequestError

MAX_MESSAGE_BYTES = 64 * 2**20

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Servers of topb take a ping each 20 s. Another gRPC server may take it for abuse and hang up; then the
    # channel connects anew, and pings half as often.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Of the pings without data: as many as a silent selection takes, not two.
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own are 1 s growing to 120 s: long after a server is back, a client would still call it away.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS to the server: whom to trust, and who the caller is. The files are PEM."""

    ca_file: str | os.PathLike[str] | None = None
    """Certificates of the authorities to trust. None: those that gRPC brings."""
    certificate_file: str | os.PathLike[str] | None = None
    """The caller's own certificate, where the server asks for one; goes with `key_file`."""
    key_file: str | os.PathLike[str] | None = None
    """The private key of `certificate_file`."""
    server_name: str | None = None
    """The name that the server's certificate bears, where it is not the address's."""

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise InvalidRequestError(
                "certificate_file and key_file go together: give both, or neither",
                reason="TLS_OPTIONS_INVALID",
            )


def target_of(address: str) -> str:
    """The address as gRPC takes it.

    Raises:
        InvalidRequestError: the address has no port.
    """
    scheme_given = "://" in address or address.startswith(("unix:", "dns:", "ipv4:", "ipv6:"))
    host, _, port = address.rpartition(":")
    if not scheme_given and not (host and port.isdecimal()):
        raise InvalidRequestError(
            f'"{address}" is not the address of a server; give host:port, such as localhost:50051',
            reason="ADDRESS_INVALID",
            metadata={"address": address},
        )
    if address.startswith(("http://", "https://")):
        raise InvalidRequestError(
            f'"{address}" is a URL; give host:port alone, and credentials=topb.TlsOptions() for TLS',
            reason="ADDRESS_INVALID",
            metadata={"address": address},
        )
    return address


@dataclass(frozen=True, slots=True)
class ChannelArguments:
    """What a channel is opened with, blocking or not."""

    target: str
    credentials: grpc.ChannelCredentials | None
    """None for a connection in the clear."""
    options: tuple[tuple[str, int | str], ...]

    def open(self) -> grpc.Channel:
        """A channel to the server; it connects at the first call."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, options=self.options)
        return grpc.secure_channel(self.target, self.credentials, options=self.options)

    def open_async(self) -> grpc.aio.Channel:
        """The same, for the event loop that runs."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, options=self.options)
        return grpc.aio.secure_channel(self.target, self.credentials, options=self.options)


def channel_arguments(
    address: str, credentials: TlsOptions | grpc.ChannelCredentials | None
) -> ChannelArguments:
    """What a channel to the server is opened with.

    Raises:
        InvalidRequestError: the address has no port, or a file of the TLS options cannot be read.
    """
    target = target_of(address)
    if not isinstance(credentials, TlsOptions):
        return ChannelArguments(target, credentials, _OPTIONS)
    options: tuple[tuple[str, int | str], ...] = _OPTIONS
    if credentials.server_name is not None:
        options = (*_OPTIONS, ("grpc.ssl_target_name_override", credentials.server_name))
    return ChannelArguments(target, _channel_credentials(credentials), options)


def _channel_credentials(tls: TlsOptions) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_contents(tls.ca_file),
        private_key=_contents(tls.key_file),
        certificate_chain=_contents(tls.certificate_file),
    )


def _contents(file: str | os.PathLike[str] | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InvalidRequestError(
            f"cannot read {os.fspath(file)}: {error.strerror}",
            reason="TLS_OPTIONS_INVALID",
            metadata={"file": os.fspath(file)},
        ) from error
