"""Does a label tell the tokens that carry a direction from any others? Marked ones are judged.

In a text at the pole the tokens with at least MARKED of its peak are marked, since a dense
direction is active everywhere. In every other text the marks of a positive one, picked at random,
are laid where they might be in a text of its length cut from there: as many tokens, in the same
runs and at such places, so that only what is marked can tell them apart. Source: fuzzing scoring,
Paulo, Mallen, Juang and Belrose 2024 (arXiv 2410.13928).
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.scores.items import Item, Marks
from builder.scores.judge import Text
from builder.scores.stretches import number_of, stretch_start


def fuzzing_texts(items: Sequence[Item], seed: int) -> list[Text]:
    """The items with marks, in the same order; whatever the order, each has the same marks.

    A text cut to fit a prompt is cut around the peak, or where it would be.
    """
    donors = [(item.window.text, item.marks) for item in items if item.marks]
    return [_text(item, donors, seed) for item in items]


def _text(item: Item, donors: Sequence[tuple[str, Marks]], seed: int) -> Text:
    n = len(item.window.token_ends)
    if item.marks:
        return _marked(item, item.marks, item.first, n)
    if not donors or not n:
        return Text(item.window, item.peak, ())
    own = item.window.text
    # A shorter one would have to be laid somewhere, which may not be where it belongs.
    fitting = [donor for donor in donors if donor[1].tokens >= n] or donors
    # Drawn so that a donor more or less leaves the marks of most texts as they are.
    _, marks = min(fitting, key=lambda donor: number_of(seed, own, donor[0]))
    number = number_of(seed, own)
    if marks.tokens < n:
        return _marked(item, marks, -(number % (n - marks.tokens + 1)), n)
    return _marked(item, marks, stretch_start(marks.tokens, n, marks.peak, number), n)


def _marked(item: Item, marks: Marks, first: int, n: int) -> Text:
    """The item with the marks of a window in which it begins at the token ``first``."""
    marked = tuple(token - first for token in marks.marked if first <= token < first + n)
    return Text(item.window, marks.peak - first, marked)
