"""Does a label tell the tokens that carry a direction from any others? Marked ones are judged.

In a text at the pole the tokens with at least MARKED of its peak are marked, since a dense
direction is active everywhere. In every other text the marks of a positive one, picked at random,
are laid over a random place: as many tokens, in the same runs, so that only what is marked can tell
them apart. Source: fuzzing scoring, Paulo, Mallen, Juang and Belrose 2024 (arXiv 2410.13928).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from builder.scores.items import Item
from builder.scores.judge import Text


def fuzzing_texts(items: Sequence[Item], seed: int) -> list[Text]:
    """The items with marks, in the same order; whatever the order, each has the same marks.

    A text cut to fit a prompt is cut around what is marked.
    """
    patterns = sorted(
        (tuple(mark - item.marks[0] for mark in item.marks), item.window.doc_id)
        for item in items
        if item.truth and item.marks
    )
    return [_text(item, [pattern for pattern, _ in patterns], seed) for item in items]


def _text(item: Item, patterns: Sequence[tuple[int, ...]], seed: int) -> Text:
    if item.truth or not patterns:
        return Text(item.window, item.peak, item.marks)
    rng = np.random.default_rng([seed, item.window.doc_id, item.window.start])
    pattern = patterns[int(rng.integers(len(patterns)))]
    n = len(item.window.token_ends)
    start = int(rng.integers(max(1, n - pattern[-1])))
    marks = tuple(start + offset for offset in pattern if start + offset < n)
    return Text(item.window, marks[len(marks) // 2] if marks else item.peak, marks)
