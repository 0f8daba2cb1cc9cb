"""Which part of a window is judged? A stretch, drawn so that its form says nothing of its truth.

The window kept around a peak has it in the middle, unless the document ends there; that of a random
document begins anywhere. A judge that saw them whole could tell them apart without reading a word.
So every text is a stretch of as many tokens (one more than are kept on either side of a peak), or a
whole document that is shorter: of the stretches that contain the peak, or of all where there is
none, each is as likely. Which one follows from the text of the window alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from builder.records import Window


def stretch_start(tokens: int, length: int, peak: int | None, number: int) -> int:
    """The first token of a stretch of ``length`` of a window's tokens, by a random ``number``.

    0 where the window is no longer than that.
    """
    low, high = 0, max(0, tokens - length)
    if peak is not None:
        low, high = max(low, peak - length + 1), min(high, peak)
    return low + number % (high - low + 1)


def stretch(window: Window, length: int, peak: int | None = None) -> tuple[int, Window]:
    """A window's stretch of ``length`` tokens, and which of its tokens is the first one there."""
    number = number_of("stretch", window.text)
    first = stretch_start(len(window.token_ends), length, peak, number)
    return first, window.part(first, length)


def number_of(*parts: object) -> int:
    """A number of 64 bits that follows the parts alone."""
    return numbers_after(*parts[:-1])(parts[-1])


def numbers_after(*parts: object) -> Callable[[object], int]:
    """:func:`number_of` of these parts and a further one, for many of those."""
    state = hashlib.blake2b(b"".join(map(_delimited, parts)), digest_size=8)

    def number(last: object) -> int:
        whole = state.copy()
        whole.update(_delimited(last))
        return int.from_bytes(whole.digest())

    return number


def _delimited(part: object) -> bytes:
    data = str(part).encode("utf-8", "surrogatepass")
    return b"%d:%b" % (len(data), data)
