"""Determine the size of pages."""

from __future__ import annotations

from topb_scorer.errors import InvalidRequestError


def page_size(requested: int, *, default: int, maximum: int) -> int:
    """Return the maximum number of entries on a page.

    Args:
        requested: the requested size; 0 for the default.
        default: the default size.
        maximum: the largest size; larger requests are reduced to it.

    Raises:
        InvalidRequestError: the requested size is negative.
    """
    if requested < 0:
        raise InvalidRequestError(
            f"the page size is {requested}; expected 0 or more", reason="PAGE_SIZE_NEGATIVE"
        )
    return min(requested or default, maximum)
