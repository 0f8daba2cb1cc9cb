"""How does a judge see a text? Fenced in and escaped as the explainer does, cut around one token.

Every text is cut by the same rule, so that its length or its cut says nothing of where it is from.
"""

from __future__ import annotations

from builder.labels.prompts import CUT, MAX_TEXT, around, token_pieces, with_marks
from builder.scores.judge import Text


def shown(text: Text) -> str:
    """The text on one line, hidden characters visible, what is marked between our marks."""
    pieces = token_pieces(text.window)
    if not pieces:
        return ""
    marked = [False] * len(pieces)
    for token in text.marked or ():
        marked[token] = True
    first, last = around(pieces, min(text.peak, len(pieces) - 1), MAX_TEXT)
    line = with_marks(pieces[first:last], marked[first:last])
    before, after = CUT + " " if first else "", " " + CUT if last < len(pieces) else ""
    return f"{before}{line}{after}"
