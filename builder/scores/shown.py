"""How does a judge see a text? Fenced in and escaped as the explainer does, cut around one token.

Every text is a stretch drawn by one rule (:mod:`builder.scores.stretches`), and one of too many
characters is cut around a token that is as likely anywhere in it, whatever is true of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from builder.labels.prompts import CUT, MAX_TEXT, around, token_pieces, with_marks
from builder.records import Window
from builder.scores.judge import Text


def shown(text: Text) -> str:
    """The text on one line, hidden characters visible, what is marked between our marks."""
    if text.marked is None:
        return _plain(text.window, text.peak)
    return _line(text.window, text.peak, text.marked)


# Every direction is judged on the same random windows.
@lru_cache(maxsize=1024)
def _plain(window: Window, peak: int) -> str:
    return _line(window, peak, ())


def _line(window: Window, peak: int, marks: Sequence[int]) -> str:
    pieces = token_pieces(window)
    if not pieces:
        return ""
    marked = [False] * len(pieces)
    for token in marks:
        marked[token] = True
    first, last = around(pieces, min(peak, len(pieces) - 1), MAX_TEXT)
    line = with_marks(pieces[first:last], marked[first:last])
    before, after = CUT + " " if first else "", " " + CUT if last < len(pieces) else ""
    return f"{before}{line}{after}"
