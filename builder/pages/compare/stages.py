"""What did each stage of a line keep, turn, give up and add? Counts, and directions followed.

A direction is followed from stage to stage through its one-to-one matches. Stages that are not
next to each other are not compared: what is gone for one stage and comes again is born again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.pages.compare.groups import Group, Line, Match, Pair
from builder.pages.nearby import Key


@dataclass(frozen=True, slots=True)
class Step:
    """From one stage to the next: what became of the directions of the first, what is new.

    ``kept`` and ``rotated`` are matched, the latter with a cosine below ``groups.SAME``. The first
    stage's other directions lie ``beside`` one that is matched with a nearer one, or have
    ``vanished``; those of the next that are matched with none are ``beside_new`` or ``born``.
    """

    pair: Pair
    kept: int
    rotated: int
    beside: int
    vanished: tuple[Key, ...]
    born: tuple[Key, ...]
    beside_new: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """A direction followed over stages: its keys from stage ``first`` on, and the cosines between.

    ``flips`` says for each of them whether its poles stand the other way round than at the first.
    """

    first: int
    keys: tuple[Key, ...]
    cosines: tuple[float, ...]

    @property
    def flips(self) -> tuple[bool, ...]:
        """Whether the poles of each direction are exchanged, against the first."""
        found, turned = [False], False
        for cosine in self.cosines:
            turned ^= cosine < 0
            found.append(turned)
        return tuple(found)


def steps(group: Group, line: Line) -> tuple[Step, ...]:
    """Every step of a line, first to last."""
    found = []
    for one, two in zip(line.runs, line.runs[1:], strict=False):
        pair = group.pair(one, two)
        kept = sum(match.is_same for match in pair.matches)
        found.append(
            Step(
                pair=pair,
                kept=kept,
                rotated=len(pair.matches) - kept,
                beside=pair.beside(pair.one),
                vanished=tuple(pair.only(pair.one)),
                born=tuple(pair.only(pair.two)),
                beside_new=pair.beside(pair.two),
            )
        )
    return tuple(found)


def lineages(found: Sequence[Step]) -> tuple[Lineage, ...]:
    """Directions that at least two stages share, those over most stages first.

    Of equally long ones the earlier, and of these those whose weakest link is firmest.
    """
    nexts = [{match.one: match for match in step.pair.matches} for step in found]
    reached: list[set[Key]] = [set(), *({m.two for m in s.pair.matches} for s in found)]
    made = []
    for first, links in enumerate(nexts):
        for start, link in links.items():
            if start in reached[first]:
                continue  # it goes on from an earlier stage
            keys, cosines = [start], []
            at, step = first, link
            while True:
                keys.append(step.two)
                cosines.append(step.cosine)
                at += 1
                following: Match | None = nexts[at].get(step.two) if at < len(nexts) else None
                if following is None:
                    break
                step = following
            made.append(Lineage(first, tuple(keys), tuple(cosines)))
    made.sort(key=lambda item: (-len(item.keys), item.first, -min(map(abs, item.cosines))))
    return tuple(made)
