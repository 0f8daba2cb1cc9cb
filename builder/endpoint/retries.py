"""Which failed requests are worth another attempt, and after how long?"""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Mapping

from builder.endpoint.messages import Fault

#: Attempts after the first, for what the server may do better next time; more of them where it
#: only asks for patience, since other threads may be served first each time.
MAX_RETRIES, MAX_BUSY_RETRIES = 4, 12
#: Seconds of the first pause, which doubles, and of the longest one; a Retry-After may be longer.
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_RETRY_AFTER = 0.5, 8.0, 120.0
#: Seconds of pauses for one question, in all.
MAX_WAITING = 300.0
_MOMENTARY = (408, 409, 429)
_BUSY = (429, 503)


class NoReplyError(Exception):
    """A request without an answer.

    ``is_momentary``: another attempt may have one; ``is_busy``: the server asks everybody for
    patience; ``after``: so many seconds, where it said so; ``is_lost``: there was no connection, or
    it broke; ``may_cost``: the server may have answered all the same, and may charge for it.
    """

    def __init__(
        self,
        fault: Fault,
        *,
        is_momentary: bool = True,
        is_busy: bool = False,
        is_lost: bool = False,
        may_cost: bool = False,
        after: float | None = None,
    ) -> None:
        super().__init__(fault.reason)
        self.fault = fault
        self.is_momentary = is_momentary
        self.is_busy = is_busy
        self.is_lost = is_lost
        self.may_cost = may_cost
        self.after = after

    @classmethod
    def of_status(cls, status: int, detail: str, headers: Mapping[str, str]) -> NoReplyError:
        """What an HTTP status of 400 or more says."""
        return cls(
            Fault("timeout" if status == 408 else "http", f"HTTP {status}: {detail}"),
            is_momentary=status in _MOMENTARY or status >= 500,
            is_busy=status in _BUSY,
            after=retry_after(headers),
        )

    def pause(self, tries: int) -> float | None:
        """Seconds until the next attempt after so many that failed; None when there is none."""
        most = MAX_BUSY_RETRIES if self.is_busy else MAX_RETRIES
        if not self.is_momentary or tries > most:
            return None
        if self.after is not None:
            return self.after if self.after <= LONGEST_RETRY_AFTER else None
        # A little apart, so that threads that failed together do not come back together.
        longest = min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE)
        return longest * random.uniform(0.75, 1.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, by ``retry-after-ms`` or ``Retry-After``; None if not.

    The latter is a number of seconds or a date (RFC 9110, section 10.2.3).
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, OSError):
        return None
