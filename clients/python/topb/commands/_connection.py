"""Options that give the address of a server and configure the connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topb import Client, TlsOptions
from topb.commands.options import Option, section

TLS_OPTIONS = section(
    "TLS (any of these options turns it on)",
    Option("--tls", "Connect over TLS."),
    Option("--tls-ca PEM", "Certificates of the authorities to trust."),
    Option("--tls-certificate PEM", "Client certificate, for a server that asks for one."),
    Option("--tls-key PEM", "Private key of --tls-certificate."),
    Option("--tls-server-name NAME", "Name in the certificate, if it differs from the address."),
)


def server_option(*, required: bool = True) -> Option:
    """Return the option `--server`."""
    return Option(
        "--server HOST:PORT",
        "Address of the server.",
        required=required,
        envvar="TOPB_SERVER",
        show_envvar=True,
    )


def timeout_option(default: float | None) -> Option:
    """Return the option `--timeout`."""
    shown = "no limit" if default is None else True
    return Option("--timeout S", "Give up after this many seconds.", default=default, show_default=shown)


def connection_options(*, timeout: float | None) -> list[Option]:
    """Return `--server`, `--timeout` with this default, and the TLS options."""
    return [server_option(), timeout_option(timeout), *TLS_OPTIONS]


def open_client(options: Mapping[str, Any]) -> Client:
    """Return a client of the server that the options name. Any TLS option turns TLS on."""
    tls = None
    if any(options[str(option.name)] not in (None, False) for option in TLS_OPTIONS):
        tls = TlsOptions(
            ca_file=options["tls_ca"],
            certificate_file=options["tls_certificate"],
            key_file=options["tls_key"],
            server_name=options["tls_server_name"],
        )
    return Client(options["server"], credentials=tls, timeout=options["timeout"])
