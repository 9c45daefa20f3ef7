"""Check the size of pages and the tokens between them."""

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


def invalid_page_token(token: str) -> InvalidRequestError:
    """Return the error for a page token that the server did not issue."""
    return InvalidRequestError(
        f"page token {token!r} is invalid; expected the next_page_token of the previous page",
        reason="PAGE_TOKEN",
    )
