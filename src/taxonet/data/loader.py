"""Reading ahead on threads: decoding and resizing release the interpreter lock, so threads use all cores."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from taxonet.machine import cpu_count

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    function: Callable[[T], R], items: Iterable[T], workers: int | None = None, ahead: int = 64
) -> Iterator[R]:
    """`map(function, items)` on threads: results in order, at most `ahead` of them waiting.

    Memory is bounded for any number of items. An exception of `function` is raised at its item's place.
    """
    pool = ThreadPoolExecutor(workers or cpu_count(), thread_name_prefix="taxonet-read")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
