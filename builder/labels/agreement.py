"""How alike are the labels that one pole got from different examples? Shared words, 0 to 1.

Of every pair of labels the F1 of their sets of words is taken: twice the words they share over the
words they have. Words are casefolded and lose their commonest English endings. It knows no
synonyms, so it is a lower bound on how alike the labels are in meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from builder.labels.terms import units

_KINDS = frozenset(("word", "number", "character", "emoji"))
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ed", "es", "ly", "s", "e", "y")
#: Shorter stems say too little.
_SHORTEST_STEM = 3
#: Words that labels share whatever they say.
_EMPTY = frozenset(
    ("a", "an", "and", "about", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to")
)


def agreement(texts: Sequence[str | None]) -> float | None:
    """The mean over all pairs of labels; None of fewer than two.

    None as a label ("no consistent pattern") agrees with itself and with nothing else.
    """
    words = [None if text is None else _words(text) for text in texts]
    pairs = [_alike(one, two) for one, two in combinations(words, 2)]
    return sum(pairs) / len(pairs) if pairs else None


def _alike(one: frozenset[str] | None, two: frozenset[str] | None) -> float:
    if one is None or two is None:
        return float(one is two)
    total = len(one) + len(two)
    return 2 * len(one & two) / total if total else 1.0


def _words(text: str) -> frozenset[str]:
    found = [unit.term for unit in units(text) if unit.kind in _KINDS]
    return frozenset(_stem(word) for word in found if word not in _EMPTY)


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word
