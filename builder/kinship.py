"""Which runs belong together, and in which order?

Two runs belong together when they have one base, or when the base of one is the tuned model of the
other. Models are told apart by their commit on a hub, or by the digests of their weights; by a
path alone nobody can tell what was there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.config import load_settings
from builder.errors import StoreError
from builder.execute import read_json
from builder.records import DirectionSet, ModelRef

if TYPE_CHECKING:
    from builder.pages.compare.groups import Line


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a run's models from others: equal keys, equal weights.

    ``tuned`` is None where it cannot be told. Directions of another width, or of a model of another
    depth, are never compared.
    """

    base: tuple[str, ...]
    tuned: tuple[str, ...] | None
    d_model: int
    n_layers: int

    def belongs_with(self, other: Identity) -> bool:
        """Whether the two have one base, or one is what the other started from."""
        if (self.d_model, self.n_layers) != (other.d_model, other.n_layers):
            return False
        return self.base in {other.base, other.tuned} or self.tuned == other.base


def identity_of(folder: Path, found: DirectionSet) -> Identity | None:
    """That of the run in ``folder`` with these directions; None without a base that can be told."""
    files = _digests(folder)
    base = _key(found.base, files) if found.base is not None else None
    if base is None:
        return None
    return Identity(base, _key(found.tuned, files), found.d_model, found.n_layers)


def connected(identities: Sequence[Identity]) -> list[list[int]]:
    """The places of identities that belong together, directly or through others, two at least."""
    groups: list[list[int]] = []
    for at, identity in enumerate(identities):
        joined = [
            group
            for group in groups
            if any(identity.belongs_with(identities[other]) for other in group)
        ]
        groups = [group for group in groups if group not in joined]
        groups.append([*(other for group in joined for other in group), at])
    return sorted(sorted(group) for group in groups if len(group) > 1)


def stage_of(folder: Path) -> int | None:
    """The number that the recipe of a run gives it among the stages of its model (model.stage)."""
    recipe = folder / "run.toml"
    return load_settings(recipe).model.stage if recipe.is_file() else None


def lines_of(
    members: Sequence[tuple[Path, Identity, int | None]],
) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    """The lines of stages among runs that belong together, and why there is none where one is due.

    Numbers from recipes decide where two runs have one, and say what the order is of all that
    have; otherwise each way from a run that follows none to one that none follows is a line.
    """
    from builder.pages.compare.groups import Line

    staged: dict[int, list[Path]] = {}
    for folder, _, stage in members:
        if stage is not None:
            staged.setdefault(stage, []).append(folder)
    bases = {folder: identity.base for folder, identity, _ in members}
    faults = tuple(
        f"{' and '.join(folder.name for folder in held)} all have model.stage = {stage}, so their "
        "stages have no order; give each its own"
        for stage, held in sorted(staged.items())
        if len(held) > 1
    )
    if faults:
        return (), faults
    if len(staged) > 1:
        ways, known_by = [[folder for _, (folder,) in sorted(staged.items())]], "setting"
    else:
        ways, known_by = _ways(members), "weights"
    return tuple(
        Line(tuple(way), "setting" if known_by == "setting" else "weights", _is_one(way, bases))
        for way in ways
    ), ()


def _is_one(way: Sequence[Path], bases: Mapping[Path, tuple[str, ...]]) -> bool:
    return len({bases[folder] for folder in way}) == 1


def _ways(members: Sequence[tuple[Path, Identity, int | None]]) -> list[list[Path]]:
    """Every way along runs whose base is the tuned model of the one before, two at least."""
    follow = {
        folder: [
            other
            for other, theirs, _ in members
            if other != folder and identity.tuned is not None and theirs.base == identity.tuned
        ]
        for folder, identity, _ in members
    }
    followers = {other for others in follow.values() for other in others}
    found: list[list[Path]] = []
    open_ways = [[folder] for folder in follow if folder not in followers and follow[folder]]
    while open_ways:
        way = open_ways.pop(0)
        # Weights that lead round in a circle make no way without an end.
        onward = [other for other in follow[way[-1]] if other not in way]
        open_ways += [[*way, other] for other in onward]
        if not onward:
            found.append(way)
    return found


def _digests(folder: Path) -> Mapping[str, object]:
    """Digests of the local model files that a run was made from, by path; empty if not known."""
    try:
        files = read_json(folder / "stages" / "models.json")
    except StoreError:
        return {}
    return files if isinstance(files, dict) else {}


def _key(model: ModelRef, files: Mapping[str, object]) -> tuple[str, ...] | None:
    """What tells one model from another; None for a local one whose digests are not known."""
    if model.revision:
        return (model.path, model.revision)
    try:
        place = Path(model.path).expanduser().resolve()
    except (OSError, RuntimeError):
        return None
    digests = [
        str(stamp[2])
        for file, stamp in files.items()
        if Path(file).parent == place
        and Path(file).suffix in {".safetensors", ".bin"}
        and isinstance(stamp, list)
        and len(stamp) == 3
    ]
    return tuple(sorted(digests)) or None
