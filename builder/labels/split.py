"""Which examples may a labeler see, and which are kept to test its label on? Every second each.

The examples of a pole are ordered by how extreme they are, so dealing them out in turn gives both
halves the same range of values. The most extreme goes to the labeler. What is held out is seen by
no labeler: neither as an example of its own pole nor as the other pole's contrast.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.records import Example


def split_examples(
    examples: Sequence[Example],
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """One pole's examples as (those for the labeler, those held out), each by place.

    ``examples`` are those of role "any" without the documents of ``RunStore.held_out``; they may
    come in any order. A document is on one side only, on that of its most extreme example.
    """
    by_document: dict[int, list[Example]] = {}
    for example in sorted(examples, key=lambda item: item.place):
        by_document.setdefault(example.window.doc_id, []).append(example)
    halves: tuple[list[Example], list[Example]] = ([], [])
    for number, found in enumerate(by_document.values()):
        halves[number % 2].extend(found)
    explained, held_out = halves
    return tuple(explained), tuple(held_out)
