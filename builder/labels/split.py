"""Which examples may a labeler see, and which are kept to test its label on? Half of them each.

A pole's texts are ordered by a hash of each, and the first half is held out: seen by no labeler,
neither as an example of its own pole nor as the other pole's contrast. So a half is a random one,
and a text that comes into the list or leaves it, as where a near-duplicate reaches a little
further, changes the side of one other at most. Dealt out by rank, all that follow would change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from builder.labels.templates import text_digest
from builder.records import Example


def with_near_duplicates(
    documents: Iterable[int], alike: Mapping[int, frozenset[int]]
) -> frozenset[int]:
    """The documents and all that the run shows of their near-duplicates.

    Who has seen one of them has all but seen the others. ``alike`` as
    ``RunStore.near_duplicates`` gives it.
    """
    given = frozenset(documents)
    return given.union(*(alike[doc_id] for doc_id in given & alike.keys()))


def split_examples(
    examples: Sequence[Example],
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """One pole's examples as (those for the labeler, those held out), each by place.

    ``examples`` are those of role "any" without the documents of ``RunStore.held_out`` and their
    near-duplicates; they may come in any order. A document is on one side only, and so is a text
    that several documents share, such as a footer; a document with two texts goes by that of its
    most extreme example. Of an odd number of texts the labeler has one more.
    """
    text_of: dict[int, str] = {}
    by_text: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda item: item.place):
        own = text_digest(example.window.text)
        by_text.setdefault(text_of.setdefault(example.window.doc_id, own), []).append(example)
    halves: tuple[list[Example], list[Example]] = ([], [])
    for number, digest in enumerate(sorted(by_text)):
        halves[number < len(by_text) // 2].extend(by_text[digest])
    explained, held_out = (sorted(half, key=lambda item: item.place) for half in halves)
    return tuple(explained), tuple(held_out)
