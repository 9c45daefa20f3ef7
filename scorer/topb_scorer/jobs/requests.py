"""Store each large request in a file: the catalog's rows stay small, however many ids a request excludes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from topb_scorer.durable import publish_file
from topb_scorer.errors import NotFoundError
from topb_scorer.jobs.record import SelectionRecord
from topb_scorer.jobs.selection_files import SelectionFiles

LARGE_REQUEST = 64 * 1024
"""The size in bytes above which a request is stored in a file: about 3,000 excluded ids."""


class RequestStore(SelectionFiles):
    """A directory of requests, which are too large for the catalog."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, ".request")

    def write(self, selection: str, request: bytes) -> None:
        """Store the request of a selection durably."""
        publish_file(self.path(selection), lambda path: path.write_bytes(request))

    def read(self, record: SelectionRecord) -> bytes:
        """Return the request of a selection.

        Raises:
            NotFoundError: the file is missing or was altered.
        """
        try:
            request = self.path(record.id).read_bytes()
        except FileNotFoundError:
            request = b""
        if digest_of(request) != record.request_digest:
            raise NotFoundError(
                f"the file with the request of selection {record.id} is missing or was altered; repeat the "
                "request with a new request id",
                reason="REQUEST_LOST",
                selection=record.id,
            )
        return request


def digest_of(request: bytes) -> str:
    """Return the sha256 of a serialized request, in lower-case hex."""
    return hashlib.sha256(request).hexdigest()
