"""Pages of lists."""

from __future__ import annotations

from topb_scorer.errors import InvalidRequestError


def page_size(requested: int, *, default: int, maximum: int) -> int:
    """Return how many entries a page has at most, where a request for 0 entries asks for the default.

    Raises:
        InvalidRequestError: the requested size is negative.
    """
    if requested < 0:
        raise InvalidRequestError(f"page size {requested}; expected 0 or more", reason="PAGE_SIZE_NEGATIVE")
    return min(requested or default, maximum)
