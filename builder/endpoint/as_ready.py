"""How are many poles worked on at once? By threads that mostly wait for a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def as_ready(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    workers: int,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[_Result]:
    """The results of ``work`` by ``workers`` threads, reading a little ahead.

    Not in order: others go on while one waits for a slow server. ``items`` are taken up in the
    thread of the caller, and so is all the work, in order, without workers. ``stop`` is called when
    the work ends before its time.
    """
    if not workers:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="asking")
    begun: dict[Future[_Result], None] = {}
    try:
        for item in items:
            begun[pool.submit(work, item)] = None
            if len(begun) >= 2 * workers:
                yield from _finished(begun)
        while begun:
            yield from _finished(begun)
    except BaseException:
        stop()
        raise
    finally:
        # After an error, or when the caller stops, what has not begun never begins.
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(begun: dict[Future[_Result], None]) -> Iterator[_Result]:
    """The results of all that is finished, at least one, taken out of ``begun``."""
    done, _ = wait(begun, return_when=FIRST_COMPLETED)
    for future in [future for future in begun if future in done]:
        del begun[future]
        yield future.result()
