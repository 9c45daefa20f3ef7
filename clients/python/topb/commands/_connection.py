"""The options that name a server and say how to connect to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import click

from topb import Client, TlsOptions
from topb.commands.options import Decorated, combined, option

TLS_PARAMETERS = ("tls", "tls_ca", "tls_certificate", "tls_key", "tls_server_name")


def server_option(*, required: bool = True) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds `--server`."""
    return option(
        "--server",
        required=required,
        metavar="HOST:PORT",
        envvar="TOPB_SERVER",
        show_envvar=True,
        help="Address of the server.",
    )


def timeout_option(default: float | None, *, section: str = "Options") -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds `--timeout`."""
    return option(
        "--timeout",
        type=float,
        default=default,
        metavar="S",
        section=section,
        show_default=True if default is not None else "no limit",
        help="Give up after this many seconds.",
    )


def tls_options() -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds the options of a connection over TLS."""
    tls = partial(option, section="TLS (any of these options turns it on)")
    pem = partial(tls, type=click.Path(path_type=Path), metavar="PEM")
    return combined(
        tls("--tls", is_flag=True, help="Connect over TLS."),
        pem("--tls-ca", help="Certificates of the authorities to trust."),
        pem("--tls-certificate", help="Client certificate, for a server that asks for one."),
        pem("--tls-key", help="Private key of --tls-certificate."),
        tls("--tls-server-name", metavar="NAME", help="Name in the certificate, if not the address's."),
    )


def connection_options(*, timeout: float | None) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds `--server`, `--timeout` with this default, and the TLS options."""
    return combined(server_option(), timeout_option(timeout), tls_options())


def open_client(options: SimpleNamespace) -> Client:
    """Return a client of `options.server`, over TLS if any TLS option was given."""
    tls = None
    if any(vars(options)[name] not in (None, False) for name in TLS_PARAMETERS):
        tls = TlsOptions(
            ca_file=options.tls_ca,
            certificate_file=options.tls_certificate,
            key_file=options.tls_key,
            server_name=options.tls_server_name,
        )
    return Client(options.server, credentials=tls, timeout=options.timeout)
