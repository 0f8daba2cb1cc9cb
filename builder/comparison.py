"""Which runs can be compared, and how do their directions lie to each other?

Asked when a site is rendered, since runs come and go. Needs the directions files, no model. Runs
belong together when they have one base, or when the base of one is the tuned model of another.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from builder.errors import StoreError
from builder.kinship import Identity, connected, identity_of, lines_of, stage_of
from builder.records import Direction

if TYPE_CHECKING:
    from builder.pages.compare.groups import Group, Pair, Side
    from builder.pages.nearby import Comparison

#: Nearest directions that a page shows of each other model.
_NEAR = 3


@dataclass(frozen=True, slots=True)
class Compared:
    """What runs have in common.

    ``near``: for each run folder, which of its directions lie near those of others; ``groups``:
    the runs that belong together, with their matches; ``faults``: what could not be compared.
    """

    near: Mapping[Path, Sequence[Comparison]]
    groups: tuple[Group, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """A run that can be compared: its directions, and its controls by kind."""

    folder: Path
    identity: Identity
    stage: int | None
    real: list[Direction]
    controls: dict[str, list[Direction]]


def compare_runs(runs: Sequence[Path]) -> Compared:
    """What the runs in these folders have in common, as far as they belong together.

    A folder without its directions (only its database was published) is compared with none; that
    is a fault where another run has its base. The vectors of all runs are in memory, 4 * d_model
    bytes each; every cosine between two runs is computed once.
    """
    from builder.pages.compare.groups import Group

    if len(runs) < 2:
        return Compared({}, (), ())
    members, missing = _members(runs)
    faults = [_fault(folder, why) for folder, why in missing.items()]
    near: defaultdict[Path, list[Comparison]] = defaultdict(list)
    groups = []
    for together in connected([member.identity for member in members]):
        own = [members[at] for at in together]
        pairs = [_compared(one, two, near) for one, two in itertools.combinations(own, 2)]
        lines, unclear = lines_of([(item.folder, item.identity, item.stage) for item in own])
        faults += unclear
        folders = tuple(member.folder for member in own)
        lost = tuple(
            (folder, why)
            for folder, why in missing.items()
            if not set(folders).isdisjoint(_same_base(folder, runs))
        )
        groups.append(Group(folders, lost, tuple(pairs), lines))
    return Compared(dict(near), tuple(groups), tuple(faults))


def _members(runs: Sequence[Path]) -> tuple[list[_Member], dict[Path, str]]:
    """The runs that can be compared, and why those cannot that somebody might expect to be."""
    from builder.pages.compare.groups import NO_FILE
    from builder.weights.direction_file import load_directions

    members: list[_Member] = []
    missing: dict[Path, str] = {}
    for folder in runs:
        path = folder / "directions.safetensors"
        if not path.is_file():
            if _same_base(folder, runs):
                missing[folder] = NO_FILE
            continue
        try:
            found = load_directions(path)
        except StoreError as error:
            missing[folder] = str(error)
            continue
        identity = identity_of(folder, found)
        real = [direction for direction in found.directions if direction.kind != "control"]
        if identity is None or not real:
            continue
        controls: defaultdict[str, list[Direction]] = defaultdict(list)
        for direction in found.directions:
            if direction.kind == "control":
                controls[direction.hookpoint.writer].append(direction)
        members.append(_Member(folder, identity, stage_of(folder), real, dict(controls)))
    return members, missing


def _fault(folder: Path, why: str) -> str:
    from builder.pages.compare.groups import NO_FILE

    if why == NO_FILE:
        return f"{folder.name}: {why}, so it is compared with no model"
    return f"{folder.name}: is compared with no model: {why}"


def _same_base(folder: Path, runs: Sequence[Path]) -> list[Path]:
    """The other runs whose database says that they have the same base as this one."""
    own = _stated_base(folder)
    if own is None:
        return []
    return [run for run in runs if run != folder and _stated_base(run) == own]


def _stated_base(run: Path) -> object:
    from builder.store import RunStore

    if not (run / "run.duckdb").is_file():
        return None
    with RunStore(run / "run.duckdb") as store:
        model = store.meta().get("model")
    return model.get("base") if isinstance(model, dict) else None


def _compared(one: _Member, two: _Member, near: defaultdict[Path, list[Comparison]]) -> Pair:
    """The matches of two runs; what lies near each one's directions goes into ``near``."""
    from builder.pages.compare.groups import Match, Pair, match_level
    from builder.pages.nearby import Comparison, floor_of
    from builder.weights.matching import edges_between, near_edges, one_to_one

    width = one.identity.d_model
    level = match_level(len(one.real), len(two.real), width)
    floors = floor_of(len(two.real), width), floor_of(len(one.real), width)
    vectors = _stacked(one.real), _stacked(two.real)
    edges = edges_between(*vectors, min(*floors, level))
    for is_back, (own, other) in enumerate(((one, two), (two, one))):
        floor = floors[is_back]
        found = near_edges(own.real, other.real, edges, _NEAR, floor, reverse=bool(is_back))
        near[own.folder].append(Comparison(other.folder, len(other.real), floor, found))
    matches = tuple(
        Match(_key(one.real[row]), _key(two.real[column]), cosine)
        for row, column, cosine in one_to_one(one.real, two.real, edges, level)
    )
    return Pair(
        _side(one, edges.nearest_a, vectors[1], level),
        _side(two, edges.nearest_b, vectors[0], level),
        level,
        matches,
    )


def _side(
    own: _Member,
    nearest: npt.NDArray[np.float64],
    others: npt.NDArray[np.float32],
    level: float,
) -> Side:
    """What a run has in one whose directions are ``others``; ``nearest`` as its own lie to them."""
    from builder.pages.compare.groups import Side
    from builder.weights.matching import edges_between

    # A direction that is no singular vector of anything has no energy to count.
    sizes = np.nan_to_num(np.array([direction.sigma for direction in own.real])) ** 2
    controls = {
        # Only how near each lies is wanted, no pairs: a cosine reaches no 2.
        kind: tuple(edges_between(_stacked(held), others, 2.0).nearest_a.tolist())
        for kind, held in own.controls.items()
    }
    return Side(
        run=own.folder,
        nearest=dict(zip(map(_key, own.real), nearest.tolist(), strict=True)),
        energy=float(sizes[nearest >= level].sum() / sizes.sum()) if sizes.any() else 0.0,
        controls=controls,
    )


def _key(direction: Direction) -> tuple[str, str]:
    return (direction.id, direction.content_hash)


def _stacked(directions: Sequence[Direction]) -> npt.NDArray[np.float32]:
    return np.stack([direction.vector for direction in directions])
