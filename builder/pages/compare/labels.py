"""Which labels say much the same in several models, and which are said in one alone?

Labels are compared by their words (TF-IDF over the labels of all models of a group). Two poles are
taken together when each one's label is what the other model says most like it. Controls, and labels
that do no better than chance, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.labels.similar import LEAST, nearest_across
from builder.pages.compare.groups import Group
from builder.pages.label_view import PoleView
from builder.pages.nearby import Key
from builder.pages.views import DirectionView, RunView
from builder.records import Label

#: From this similarity on two labels are called much the same.
ALIKE = 0.5
#: Shared labels, and labels of one model alone, that a page shows.
SHOWN, SHOWN_ALONE = 20, 8


@dataclass(frozen=True, slots=True)
class Said:
    """A pole of a model with a label."""

    run: RunView
    item: DirectionView
    pole: PoleView


@dataclass(frozen=True, slots=True)
class SharedLabel:
    """Poles of several models whose labels say much the same: ``similarity`` of the least alike."""

    said: tuple[Said, ...]
    similarity: float


@dataclass(frozen=True, slots=True)
class Alone:
    """What one model alone says: the first of ``total`` poles, largest singular value first."""

    run: RunView
    said: tuple[Said, ...]
    total: int


@dataclass(frozen=True, slots=True)
class LabelsView:
    """Labels of a group: the first of ``total`` shared ones whose directions are not matched.

    ``of_matched`` more are said of directions that are matched; ``labelled`` poles were compared.
    """

    shared: tuple[SharedLabel, ...]
    total: int
    of_matched: int
    alone: tuple[Alone, ...]
    labelled: int


def labels_of(group: Group, runs: Sequence[RunView]) -> LabelsView:
    """The labels of a group, whose runs are given in its order."""
    said = [list(_said(run)) for run in runs]
    texts: list[list[Label]] = [
        [held.pole.label for held in own if held.pole.label] for own in said
    ]
    nearest = {
        pair: (indices.tolist(), sizes.tolist())
        for pair, (indices, sizes) in nearest_across(texts).items()
    }
    shared = list(_shared(said, nearest))
    matched = {
        (pair.one.run, match.one, pair.two.run, match.two)
        for pair in group.pairs
        for match in pair.matches
    }
    other = [found for found in shared if not _is_matched(found, matched)]
    return LabelsView(
        shared=tuple(other[:SHOWN]),
        total=len(other),
        of_matched=len(shared) - len(other),
        alone=tuple(_alone(group, runs, said, nearest, at) for at in range(len(runs))),
        labelled=sum(map(len, said)),
    )


def key_of(item: DirectionView) -> Key:
    """The key of a direction: its id and content hash."""
    return (item.row.id, item.row.content_hash)


def _said(run: RunView) -> Iterator[Said]:
    for item in run.own:
        for pole in item.poles.values():
            if pole.text and not pole.doubt:
                yield Said(run, item, pole)


def _shared(
    said: Sequence[Sequence[Said]],
    nearest: Mapping[tuple[int, int], tuple[list[int], list[float]]],
) -> Iterator[SharedLabel]:
    """Labels joined by being each other's most similar, of most models and most similar first."""
    joined: dict[tuple[int, int], tuple[int, int]] = {}
    weakest: dict[tuple[int, int], float] = {}

    def root(place: tuple[int, int]) -> tuple[int, int]:
        while (above := joined.get(place, place)) != place:
            joined[place] = joined.get(above, above)
            place = above
        return place

    for (one, two), (there, sizes) in sorted(nearest.items()):
        if one > two:
            continue
        back = nearest[two, one][0]
        for at, (other, size) in enumerate(zip(there, sizes, strict=True)):
            if size >= ALIKE and back[other] == at:
                left, right = sorted((root((one, at)), root((two, other))))
                least = min(size, weakest.get(left, 1.0), weakest.get(right, 1.0))
                joined[right] = joined[left] = left
                weakest[left] = least
    members: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for place in sorted(joined):
        members.setdefault(root(place), []).append(place)
    order = sorted(
        members, key=lambda top: (-len({run for run, _ in members[top]}), -weakest[top], top)
    )
    for top in order:
        held = tuple(said[run][at] for run, at in members[top])
        yield SharedLabel(held, min(1.0, weakest[top]))


def _is_matched(found: SharedLabel, matched: set[tuple[Path, Key, Path, Key]]) -> bool:
    """Whether all the directions that a shared label stands for are matched with each other."""
    return all(
        one.run is two.run
        or (one.run.folder, key_of(one.item), two.run.folder, key_of(two.item)) in matched
        for at, one in enumerate(found.said)
        for two in found.said[at + 1 :]
    )


def _alone(
    group: Group,
    runs: Sequence[RunView],
    said: Sequence[Sequence[Said]],
    nearest: Mapping[tuple[int, int], tuple[list[int], list[float]]],
    own: int,
) -> Alone:
    """Poles whose label is like none of another model, of directions with none of theirs near."""
    run = group.runs[own]
    pairs = [group.pair(run, other) for other in group.runs if other != run]
    only = set.intersection(*(set(pair.only(pair.one)) for pair in pairs))
    others = [at for at in range(len(said)) if at != own]
    found = [
        held
        for at, held in enumerate(said[own])
        if key_of(held.item) in only and all(nearest[own, other][1][at] < LEAST for other in others)
    ]
    found.sort(key=lambda held: -(held.item.row.sigma or 0.0))
    return Alone(runs[own], tuple(found[:SHOWN_ALONE]), len(found))
