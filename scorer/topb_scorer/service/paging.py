"""Check the size of pages and the tokens between them."""

from __future__ import annotations

import re

from topb_scorer.errors import InvalidRequestError

_OFFSET = re.compile(r"[0-9]{1,18}")


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


def page_start(token: str) -> int:
    """Return the number of entries before a page whose token is such a number; an empty token is 0.

    Raises:
        InvalidRequestError: with reason PAGE_TOKEN, if the token is not from a previous page.
    """
    if token and not _OFFSET.fullmatch(token):
        raise invalid_page_token(token)
    return int(token or 0)
