"""Who waits when a server asks for patience? Every thread, not only the one that was told so.

A server that limits rates says so to whoever asks next. If only that thread waited, the others
would go on being turned away, and hosted endpoints count that against the limit too.
"""

from __future__ import annotations

import threading
import time


class Gate:
    """Open unless closed for some seconds; safe to share between threads."""

    def __init__(self) -> None:
        self._opens = 0.0
        self._stopped = False
        self._changed = threading.Condition()

    def close_for(self, seconds: float) -> None:
        """Lets nobody pass for so long from now, or longer where it is closed for longer."""
        with self._changed:
            self._opens = max(self._opens, time.monotonic() + seconds)

    def stop(self) -> None:
        """Ends all waiting, now and from now on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, at_least: float, at_most: float) -> float | None:
        """Waits so long, and until the gate is open; the seconds it took.

        None, at once, where that would take more than ``at_most`` seconds, or when stopped.
        """
        began = time.monotonic()
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                left = max(began + at_least, self._opens) - now
                if left <= 0:
                    return now - began
                if now - began + left > at_most:
                    return None
                self._changed.wait(left)
        return None
