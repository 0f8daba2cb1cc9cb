"""What changed between two builds of a site? New, lost, other, moved, relabelled and rescored.

Runs are compared by name. Within a run a direction is the same if its content hash is, wherever it
stands; what has the same id only is a changed direction. See :data:`KINDS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from builder.pages.api.reading import read_site
from builder.pages.api.run_form import BriefDirection, BriefPole, BriefScore, RunFile
from builder.records import POLES, Pole

ChangeKind = Literal["new", "lost", "changed", "moved", "relabelled", "rescored"]
#: What can change, and what that means.
KINDS: dict[ChangeKind, str] = {
    "new": "a direction that the old site has not",
    "lost": "a direction that the new site has not",
    "changed": "a direction whose id stayed and whose content hash did not: other weights",
    "moved": "a direction whose content hash stayed and whose id did not",
    "relabelled": "a pole that is said to respond to something else, or to nothing any more",
    "rescored": "a label whose F1 went beyond an interval, came or went",
}
#: Without an interval, F1 is taken for another if it differs by more than this.
STEP = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """One change: of direction ``id`` (its new id, if it has one), of a pole of it for the last
    two of KINDS. ``old`` and ``new`` are what it was and is, None where there is nothing.
    """

    kind: ChangeKind
    run: str
    id: str
    pole: Pole | None
    old: str | float | None
    new: str | float | None


@dataclass(frozen=True, slots=True)
class SiteChanges:
    """All changes in the order of the new site, what was lost last in each run."""

    new_runs: tuple[str, ...]
    lost_runs: tuple[str, ...]
    #: Directions that are in both sites, changed or not.
    matched: int
    changes: tuple[Change, ...]

    def counts(self) -> dict[ChangeKind, int]:
        """How many changes there are of each kind."""
        found = Counter(change.kind for change in self.changes)
        return {kind: found[kind] for kind in KINDS}

    def as_values(self) -> dict[str, Any]:
        """All of it in plain values, for JSON."""
        return {
            "new_runs": list(self.new_runs),
            "lost_runs": list(self.lost_runs),
            "matched": self.matched,
            "counts": self.counts(),
            "changes": [asdict(change) for change in self.changes],
        }


def site_changes(old: Path, new: Path, step: float | None = None) -> SiteChanges:
    """What changed from the site in ``old`` to the site in ``new``.

    F1 is taken for another if either value lies outside of the other's interval, or differs by more
    than ``step`` if one is given. Raises SiteError if either folder holds no site that can be read.
    """
    _, before = read_site(old)
    _, after = read_site(new)
    changes: list[Change] = []
    matched = 0
    for name in [*after, *(name for name in before if name not in after)]:
        pairs = _pairs(_directions(before.get(name)), _directions(after.get(name)))
        matched += sum(a is not None and b is not None for a, b in pairs)
        for was, now in pairs:
            changes += _changes(name, was, now, step)
    return SiteChanges(
        tuple(name for name in after if name not in before),
        tuple(name for name in before if name not in after),
        matched,
        tuple(changes),
    )


Pair = tuple[BriefDirection | None, BriefDirection | None]


def _pairs(old: Sequence[BriefDirection], new: Sequence[BriefDirection]) -> list[Pair]:
    """Every direction once, with what it was: the same hash and id, the same hash, the same id."""
    found: dict[str, BriefDirection] = {}
    left = {direction["id"]: direction for direction in old}
    for is_same in (_same, None, _same_id):
        hashes = Counter(direction["content_hash"] for direction in left.values())
        by_hash = {direction["content_hash"]: direction for direction in left.values()}
        waiting = [direction for direction in new if direction["id"] not in found]
        wanted = Counter(direction["content_hash"] for direction in waiting)
        for direction in waiting:
            if is_same:
                match = left.get(direction["id"])
                good = match is not None and is_same(match, direction)
            else:  # what a hash names twice on a side is not known to be the one or the other
                key = direction["content_hash"]
                match = by_hash.get(key)
                good = hashes[key] == wanted[key] == 1
            if match is not None and good:
                found[direction["id"]] = match
                del left[match["id"]]
    pairs: list[Pair] = [(found.get(direction["id"]), direction) for direction in new]
    return pairs + [(direction, None) for direction in left.values()]


def _same(old: BriefDirection, new: BriefDirection) -> bool:
    return old["content_hash"] == new["content_hash"]


def _same_id(old: BriefDirection, new: BriefDirection) -> bool:
    return old["id"] == new["id"]


def _changes(
    run: str, old: BriefDirection | None, new: BriefDirection | None, step: float | None
) -> Iterator[Change]:
    if new is None:
        assert old is not None
        yield Change("lost", run, old["id"], None, _labels(old), None)
        return
    if old is None:
        yield Change("new", run, new["id"], None, None, _labels(new))
        return
    if not _same(old, new):
        yield Change("changed", run, new["id"], None, old["content_hash"], new["content_hash"])
    elif old["id"] != new["id"]:
        yield Change("moved", run, new["id"], None, old["id"], new["id"])
    for pole in POLES:
        was, now = old["poles"][pole], new["poles"][pole]
        if _said(was) != _said(now):
            yield Change("relabelled", run, new["id"], pole, _said(was), _said(now))
        if _is_rescored(was.get("score"), now.get("score"), step):
            yield Change("rescored", run, new["id"], pole, _f1(was), _f1(now))


def _directions(run: RunFile | None) -> list[BriefDirection]:
    return run["directions"] if run else []


def _said(pole: BriefPole) -> str:
    """The label, or in brackets why there is none."""
    return pole.get("label") or f"({_STATES[pole['state']]})"


_STATES = {
    "label": "an empty label",
    "none": "no consistent pattern",
    "failed": "no label: the labeler failed",
    "unlabelled": "not labelled",
}


def _labels(direction: BriefDirection) -> str:
    return " / ".join(_said(direction["poles"][pole]) for pole in POLES)


def _f1(pole: BriefPole) -> float | None:
    score = pole.get("score")
    return score.get("f1") if score else None


def _is_rescored(old: BriefScore | None, new: BriefScore | None, step: float | None) -> bool:
    before = old.get("f1") if old else None
    after = new.get("f1") if new else None
    if old is None or new is None or before is None or after is None:
        return before is not after
    if old["scorer"] != new["scorer"]:
        return True
    if step is not None:
        return abs(after - before) > step
    ends = [(after, old.get("f1_interval")), (before, new.get("f1_interval"))]
    known = [(value, interval) for value, interval in ends if interval]
    if not known:
        return abs(after - before) > STEP
    return any(not low <= value <= high for value, (low, high) in known)
