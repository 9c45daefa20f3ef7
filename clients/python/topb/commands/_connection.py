"""The options that say which server to call, and how."""

from __future__ import annotations

import argparse

from topb.channel import TlsOptions
from topb.client import Client

_TLS_OPTIONS = ("tls_ca", "tls_certificate", "tls_key", "tls_server_name")


def add_tls_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a connection over TLS; any of them asks for it."""
    group = parser.add_argument_group("TLS")
    group.add_argument("--tls", action="store_true", help="connect over TLS")
    group.add_argument("--tls-ca", metavar="PEM", help="certificates of the authorities to trust")
    group.add_argument(
        "--tls-certificate", metavar="PEM", help="own certificate, where the server asks for one"
    )
    group.add_argument("--tls-key", metavar="PEM", help="private key of --tls-certificate")
    group.add_argument("--tls-server-name", metavar="NAME", help="the name in the server's certificate")


def open_client(options: argparse.Namespace) -> Client:
    """A client of `--server`, over TLS where an option asks for it."""
    tls = None
    if options.tls or any(getattr(options, name) is not None for name in _TLS_OPTIONS):
        tls = TlsOptions(
            ca_file=options.tls_ca,
            certificate_file=options.tls_certificate,
            key_file=options.tls_key,
            server_name=options.tls_server_name,
        )
    return Client(options.server, credentials=tls, timeout=options.timeout)
