"""The options of gRPC channels, including TLS."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from topb.errors import InvalidRequestError

MAX_MESSAGE_BYTES = 64 * 2**20

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # topb servers allow one ping every 20 s. Another gRPC server may treat pings as abuse and close the
    # connection; the channel then reconnects and pings half as often.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # gRPC 1.85 waits for the answer to a ping as long as this option says, by default for 60 s.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Allow any number of pings without data. The default of two is too few for a selection without events.
    ("grpc.http2.max_pings_without_data", 0),
    # By default, these grow from 1 s to 120 s: clients would fail long after their server is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS options of a connection. All files are PEM."""

    ca_file: str | os.PathLike[str] | None = None
    """Certificates of the trusted authorities; by default, those that gRPC ships with."""
    certificate_file: str | os.PathLike[str] | None = None
    """The client's certificate, if the server requires one. It needs `key_file`."""
    key_file: str | os.PathLike[str] | None = None
    """The private key of `certificate_file`."""
    server_name: str | None = None
    """The name in the server's certificate, if it differs from the address."""

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise InvalidRequestError(
                "only one of certificate_file and key_file is given; expected both, or neither",
                reason="TLS_OPTIONS_INVALID",
            )


def target_of(address: str) -> str:
    """Return the address as a gRPC target.

    Raises:
        InvalidRequestError: If the address has no port, or is a URL.
    """
    scheme_given = "://" in address or address.startswith(("unix:", "dns:", "ipv4:", "ipv6:"))
    host, _, port = address.rpartition(":")
    if not scheme_given and not (host and port.isdecimal()):
        raise InvalidRequestError(
            f'"{address}" is not the address of a server; expected host:port, such as localhost:50051',
            reason="ADDRESS_INVALID",
            metadata={"address": address},
        )
    if address.startswith(("http://", "https://")):
        raise InvalidRequestError(
            f'"{address}" is a URL; expected host:port, and credentials=topb.TlsOptions() for TLS',
            reason="ADDRESS_INVALID",
            metadata={"address": address},
        )
    return address


@dataclass(frozen=True, slots=True)
class ChannelArguments:
    """The arguments of a channel, blocking or asynchronous."""

    target: str
    credentials: grpc.ChannelCredentials | None
    """None for an unencrypted connection."""
    options: tuple[tuple[str, int | str], ...]

    def open(self) -> grpc.Channel:
        """Return a blocking channel. It connects at the first call."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, options=self.options)
        return grpc.secure_channel(self.target, self.credentials, options=self.options)

    def open_async(self) -> grpc.aio.Channel:
        """Return a channel for the running event loop. It connects at the first call."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, options=self.options)
        return grpc.aio.secure_channel(self.target, self.credentials, options=self.options)


def channel_arguments(
    address: str, credentials: TlsOptions | grpc.ChannelCredentials | None
) -> ChannelArguments:
    """Return the arguments of a channel to a server.

    Raises:
        InvalidRequestError: If the address has no port, or a file of the TLS options cannot be read.
    """
    target = target_of(address)
    if not isinstance(credentials, TlsOptions):
        return ChannelArguments(target, credentials, _OPTIONS)
    options = _OPTIONS
    if credentials.server_name is not None:
        options = (*_OPTIONS, ("grpc.ssl_target_name_override", credentials.server_name))
    channel_credentials = grpc.ssl_channel_credentials(
        root_certificates=_contents(credentials.ca_file),
        private_key=_contents(credentials.key_file),
        certificate_chain=_contents(credentials.certificate_file),
    )
    return ChannelArguments(target, channel_credentials, options)


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
