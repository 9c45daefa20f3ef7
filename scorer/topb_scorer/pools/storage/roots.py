"""Restrict the paths and URIs that a scorer may read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.pools.storage.addresses import (
    Address,
    BaseAddress,
    StoredAddress,
    WebAddress,
    parse_address,
    shown,
)

AnyAddress = TypeVar("AnyAddress", bound=BaseAddress)


@dataclass(frozen=True)
class AllowedRoots:
    """Directories, S3 prefixes and web prefixes. A scorer may read everything below them."""

    prefixes: tuple[str, ...] | None
    """Resolved prefixes such as /directory/, s3://bucket/key/ and https://host/path/, each with a trailing
    slash. None allows everything."""

    @classmethod
    def anywhere(cls) -> AllowedRoots:
        """Return roots that allow everything, for callers that read with their own permissions."""
        return cls(None)

    @classmethod
    def below(cls, roots: Iterable[str | Path]) -> AllowedRoots:
        """Return roots that allow only what is below one of `roots`.

        Args:
            roots: directories, s3://bucket[/key] or http(s)://host[/path].

        Raises:
            InvalidRequestError: a root cannot be parsed, or is a URL with a query.
        """
        addresses = [parse_address(str(root)) for root in roots]
        for address in addresses:
            if isinstance(address, WebAddress) and "?" in address.url:
                raise InvalidRequestError(
                    f"{address} has a query; an allowed root must be a prefix without one",
                    reason="ROOT_INVALID",
                    root=address,
                )
        return cls(tuple(address.resolved().prefix for address in addresses))

    def allowed_address(self, uri: str, file: StoredAddress | None = None) -> Address:
        """Parse a path or URI and check that it may be read, after resolving links and `..` in a local path.

        The arguments are the same as for `parse_address`.

        Raises:
            InvalidRequestError: `uri` is not a path or URI, or is ambiguous.
            AccessDeniedError: `uri` is outside the allowed roots.
        """
        return self.check(parse_address(uri, file), uri)

    def check(self, address: AnyAddress, uri: str) -> AnyAddress:
        """Resolve an address, check that it may be read, and return it.

        Args:
            address: the address.
            uri: the name of the address in error messages.

        Raises:
            InvalidRequestError: the address cannot be resolved, for example because of a loop of links.
            AccessDeniedError: the address is outside the allowed roots.
        """
        try:
            resolved = address.resolved()
        except (OSError, RuntimeError) as error:
            # The text of the error has the path from the root, which the caller may not know.
            fault = getattr(error, "strerror", None) or "a loop of links"
            raise InvalidRequestError(
                f"{shown(uri)} cannot be resolved: {fault}", reason="POOL_URI", uri=shown(uri)
            ) from error
        if self.prefixes is None or resolved.prefix.startswith(self.prefixes):
            return resolved
        raise AccessDeniedError(
            f"{shown(uri)} is outside the allowed roots; `topb serve --allow-root` adds a root",
            reason="POOL_NOT_ALLOWED",
            uri=shown(uri),
        )
