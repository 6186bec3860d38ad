"""Reading ahead in a thread."""

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the items in order, computed up to ``depth`` ahead in one thread.

    An error of ``items`` is raised where its item would have been yielded. The thread has ended when
    the iterator is exhausted or closed. An item that was yielded is not kept.
    """
    source, end = iter(items), object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        waiting: collections.deque[Future[Any]] = collections.deque(
            pool.submit(next, source, end) for _ in range(depth)
        )
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            held = [item]
            del item
            yield held.pop()
    finally:
        pool.shutdown(cancel_futures=True)
