"""Does a label tell the texts at a pole from others? Each text is judged as a whole.

Source: detection scoring, Paulo, Mallen, Juang and Belrose 2024 (arXiv 2410.13928), with texts that
the labeler never saw.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.scores.items import Item
from builder.scores.judge import Text


def detection_texts(items: Sequence[Item]) -> list[Text]:
    """The items as a judge is shown them, in the same order."""
    return [Text(item.window, item.peak) for item in items]
