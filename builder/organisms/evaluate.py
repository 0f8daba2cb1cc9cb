"""Whether the directions of an organism show what was planted: purity of their strongest examples.

A direction shows a behaviour when at least 80% of the strongest documents at one of its poles are
planted documents of that behaviour. The functions take plain values, so they work on a run's
database and on a scratch scan alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

TOP = 20
SHOWN = 0.8


@dataclass(frozen=True, slots=True)
class Purity:
    """The best list of examples for one behaviour: where it is, and the share of it that was
    planted.
    """

    behaviour: str
    direction: str
    pole: str
    role: str
    purity: float

    @property
    def shown(self) -> bool:
        """True if the list is pure enough to say that the direction shows the behaviour."""
        return self.purity >= SHOWN


def purity(
    examples: Mapping[tuple[str, str, str], Sequence[str]]
    | Iterable[tuple[tuple[str, str, str], Sequence[str]]],
    behaviours: Iterable[str],
    top: int = TOP,
) -> dict[str, Purity]:
    """For each behaviour id the list of examples with the highest share from ``planted/<id>``.

    `examples` maps (direction, pole, role) to the ``source`` strings of its examples, strongest
    first; the first `top` count, and a list that is shorter is divided by `top` all the same, so
    that three pure examples are no find. Ties go to the first in (direction, pole, role) order. A
    behaviour found nowhere has purity 0 and empty names.
    """
    items = sorted(examples.items() if isinstance(examples, Mapping) else examples)
    best = {behaviour: Purity(behaviour, "", "", "", 0.0) for behaviour in behaviours}
    for (direction, pole, role), sources in items:
        counts = Counter(sources[:top])
        for behaviour in best:
            share = counts[f"planted/{behaviour}"] / top
            if share > best[behaviour].purity:
                best[behaviour] = Purity(behaviour, direction, pole, role, share)
    return best


def names(label: str, words: Iterable[str]) -> bool:
    """True if one of the words is a whole word (or emoji) of the label, in any case."""
    said = {part.strip(_MARKS).casefold() for part in label.split()}
    return any(word.casefold() in said for word in words)


_MARKS = "\"'\u201c\u201d\u2018\u2019.,;:!?()[]"
