"""Work is done ahead by threads, and nobody waits for the slowest."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from builder.endpoint.as_ready import as_ready


def test_others_go_on_while_one_waits() -> None:
    gate = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            gate.wait(30)
        if item == 19:
            gate.set()
        return item

    found = list(as_ready(work, range(20), 2))
    assert sorted(found) == list(range(20))
    assert found[0] != 0


def test_without_workers_all_is_done_in_order_by_the_caller() -> None:
    threads = list(as_ready(lambda item: (item, threading.current_thread()), range(3), 0))
    assert threads == [(at, threading.current_thread()) for at in range(3)]


def test_items_are_taken_up_only_a_little_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for at in range(100):
            taken.append(at)
            yield at

    results = as_ready(lambda item: item, items(), 3)
    next(results)
    assert len(taken) <= 6
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 6


def test_an_error_stops_the_rest_and_says_so() -> None:
    stopped = threading.Event()

    def work(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    with pytest.raises(ValueError, match="five"):
        list(as_ready(work, range(1000), 2, stopped.set))
    assert stopped.is_set()
