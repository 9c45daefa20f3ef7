"""Which paths and URIs a scorer may read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.pools.storage.addresses import Address, BaseAddress, StoredAddress, WebAddress, parse_address

AnyAddress = TypeVar("AnyAddress", bound=BaseAddress)


@dataclass(frozen=True)
class AllowedRoots:
    """The directories and the S3 and web prefixes below which everything may be read."""

    prefixes: tuple[str, ...] | None
    """/directory/, s3://bucket/key/ and https://host/path/, resolved, each with a trailing slash. None allows
    everything everywhere."""

    @classmethod
    def anywhere(cls) -> AllowedRoots:
        """Return roots without limits, for callers that read with their own rights."""
        return cls(None)

    @classmethod
    def below(cls, roots: Iterable[str | Path]) -> AllowedRoots:
        """Return roots that allow only what is below one of `roots`.

        Args:
            roots: Directories, s3://bucket[/key] or http(s)://host[/path].

        Raises:
            InvalidRequestError: One of them is none of these, or is a URL with a query.
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

        The arguments are those of `parse_address`.

        Raises:
            InvalidRequestError: It is not a path or URI, or is ambiguous.
            AccessDeniedError: It is outside the allowed roots.
        """
        return self.check(parse_address(uri, file), uri)

    def check(self, address: AnyAddress, uri: str) -> AnyAddress:
        """Return the resolved address if it may be read; errors call it `uri`.

        Raises:
            InvalidRequestError: It contains a loop of links.
            AccessDeniedError: It is outside the allowed roots.
        """
        try:
            resolved = address.resolved()
        except (OSError, RuntimeError) as error:
            raise InvalidRequestError(
                f"{uri} cannot be resolved: {error}", reason="POOL_URI", uri=uri
            ) from error
        if self.prefixes is None or resolved.prefix.startswith(self.prefixes):
            return resolved
        allowed = ", ".join(self.prefixes) or "none: the server was started without --allow-root"
        raise AccessDeniedError(
            f"{uri} is outside the allowed roots ({allowed})", reason="POOL_NOT_ALLOWED", uri=uri
        )
