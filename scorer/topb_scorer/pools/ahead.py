"""Waiting for other machines' answers many at a time, and taking them in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

_AT_ONCE = 16

Row = TypeVar("Row")
Answer = TypeVar("Answer")


def answers_ahead(
    ask: Callable[[Row], Answer], rows: Iterable[Row], waits: Callable[[Row], bool]
) -> Iterator[Answer]:
    """`map(ask, rows)`, with up to 16 of the rows that wait for other machines under way at once.

    Closing it gives up what has not begun. The other rows are asked for as they are taken.
    """
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="read") as readers:
        futures: deque[Future[Answer]] = deque(maxlen=_AT_ONCE)
        answers: deque[Callable[[], Answer]] = deque()
        try:
            for row in rows:
                if len(answers) == _AT_ONCE:
                    yield answers.popleft()()
                if waits(row):
                    futures.append(readers.submit(ask, row))
                    answers.append(futures[-1].result)
                elif answers:
                    answers.append(partial(ask, row))
                else:
                    yield ask(row)
            while answers:
                yield answers.popleft()()
        finally:
            for future in futures:
                future.cancel()
