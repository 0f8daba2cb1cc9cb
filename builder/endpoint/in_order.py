"""How are many poles worked on at once? By threads that mostly wait for a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    workers: int,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[_Result]:
    """The results of ``work`` in order, with ``workers`` threads, reading a little ahead.

    ``items`` are taken up in the thread of the caller, and so is all the work without workers.
    ``stop`` is called when the work ends before its time.
    """
    if not workers:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="asking")
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:
        stop()
        raise
    finally:
        # After an error, or when the caller stops, what has not begun never begins.
        pool.shutdown(wait=True, cancel_futures=True)
