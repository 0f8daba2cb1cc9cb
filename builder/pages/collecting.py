"""How often does Python look for garbage while pages are made? Seldom: hardly any is in cycles.

A build holds millions of small objects that stay until its end, and every look at them finds
nothing. Looking as often as Python does by default takes a third of the time that pages take.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

#: New objects between two looks at the youngest, and how many of those between two at the others.
_SELDOM = (100_000, 20, 100)


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """Looks seldom within, and as often as before afterwards."""
    before = gc.get_threshold()
    collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)


def collect_seldom() -> None:
    """Looks seldom from now on; for processes that make nothing but pages."""
    gc.set_threshold(*_SELDOM)
