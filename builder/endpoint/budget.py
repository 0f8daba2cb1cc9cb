"""May one more request be paid for? Asked before it is sent, settled when its cost is known.

Before a request is sent, the most it can cost is set aside; after it, what it did cost takes that
place. So the sum never crosses the limit, however many threads ask at once. A request that does not
fit waits for those on their way, which mostly cost less than was set aside for them, and is refused
when none is left.
"""

from __future__ import annotations

import threading


class Budget:
    """A limit in US dollars, with what was spent before; safe to share between threads.

    Without a limit everything fits, and the sum is kept all the same.
    """

    def __init__(self, limit: float | None = None, spent: float = 0.0) -> None:
        self.limit = limit
        self._spent = spent
        self._reserved = 0.0
        self._on_their_way = 0
        self._changed = threading.Condition()

    @property
    def spent(self) -> float:
        """US dollars spent so far, without what is set aside."""
        with self._changed:
            return self._spent

    def recount(self, spent: float) -> None:
        """Puts what was spent in the place of what was known of it; nothing may be on its way."""
        with self._changed:
            self._spent = spent

    def reserve(self, most: float, *, wait: bool = True) -> bool:
        """Whether ``most`` fits; if so, it is set aside until :meth:`settle`."""
        with self._changed:
            while self.limit is not None and self._spent + self._reserved + most > self.limit:
                if not (wait and self._on_their_way) or self._spent + most > self.limit:
                    return False
                self._changed.wait()
            self._reserved += most
            self._on_their_way += 1
            return True

    def settle(self, most: float, cost: float) -> None:
        """Puts what a request did cost in the place of what was set aside for it."""
        with self._changed:
            self._on_their_way -= 1
            # With nothing on its way nothing is set aside: no rounding errors add up.
            self._reserved = self._reserved - most if self._on_their_way else 0.0
            self._spent += cost
            self._changed.notify_all()
