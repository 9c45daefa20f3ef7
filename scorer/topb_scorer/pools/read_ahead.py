"""Read from other machines in parallel, and return the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

_AT_ONCE = 16

Row = TypeVar("Row")
Result = TypeVar("Result")


def map_ahead(
    read: Callable[[Row], Result], rows: Iterable[Row], *, is_remote: Callable[[Row], bool]
) -> Iterator[Result]:
    """Yield `read(row)` for each row, in order, reading up to 16 remote rows at once.

    Rows that are not remote are read when their turn comes. Closing the iterator cancels the reads that have
    not begun.
    """
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="read") as readers:
        futures: deque[Future[Result]] = deque(maxlen=_AT_ONCE)
        results: deque[Callable[[], Result]] = deque()
        try:
            for row in rows:
                if len(results) == _AT_ONCE:
                    yield results.popleft()()
                if is_remote(row):
                    futures.append(readers.submit(read, row))
                    results.append(futures[-1].result)
                elif results:
                    results.append(partial(read, row))
                else:
                    yield read(row)
            while results:
                yield results.popleft()()
        finally:
            for future in futures:
                future.cancel()
