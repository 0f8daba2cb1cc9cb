"""Which directions of one run lie near those of another run of the same base?

Asked when a site is rendered, since runs come and go. Needs the directions files, no model.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import StoreError
from builder.execute import read_json
from builder.records import Direction, DirectionSet

if TYPE_CHECKING:
    from builder.pages.nearby import Comparison

#: Nearest directions that a page shows of each other model.
_NEAR = 3


def compare_runs(runs: Sequence[Path]) -> tuple[dict[Path, list[Comparison]], tuple[str, ...]]:
    """For each run folder, which of its directions lie near those of the others of its base.

    A folder without its directions (only its database was published) is compared with none; that
    is a warning, the second value, where another run has its base. Controls are left out: base
    ones are the same in all. The vectors of all runs are in memory, 4 * d_model bytes each.
    """
    from builder.pages.nearby import Comparison, floor_of
    from builder.weights.direction_file import load_directions
    from builder.weights.neighbours import near_in

    if len(runs) < 2:
        return {}, ()
    groups: defaultdict[tuple[Any, ...], list[tuple[Path, list[Direction]]]] = defaultdict(list)
    faults: list[str] = []
    for folder in runs:
        path = folder / "directions.safetensors"
        if not path.is_file():
            if _shares_base(folder, runs):
                faults.append(f"{folder.name}: has no {path.name}, so it is compared with no model")
            continue
        try:
            found = load_directions(path)
        except StoreError as error:
            faults.append(f"{folder.name}: is compared with no model: {error}")
            continue
        base = _base_key(folder, found)
        real = [direction for direction in found.directions if direction.kind != "control"]
        if base is not None and real:
            groups[base, found.d_model, found.n_layers].append((folder, real))
    comparisons: defaultdict[Path, list[Comparison]] = defaultdict(list)
    for (_, width, _), members in groups.items():
        for (one, own), (two, others) in itertools.permutations(members, 2):
            floor = floor_of(len(others), width)
            near = near_in(own, others, _NEAR, floor)
            comparisons[one].append(Comparison(two, len(others), floor, near))
    return dict(comparisons), tuple(faults)


def _base_key(folder: Path, directions: DirectionSet) -> tuple[str, ...] | None:
    """What tells one base from another: its commit on a hub, or the digests of its weights.

    None without a base, and for a local one whose digests the folder does not hold: by its path
    alone nobody can tell what was there.
    """
    base = directions.base
    if base is None or base.revision:
        return (base.path, base.revision or "") if base else None
    try:
        place = Path(base.path).expanduser().resolve()
        files = read_json(folder / "stages" / "models.json")
    except (OSError, RuntimeError, StoreError):
        return None
    stamps = files.items() if isinstance(files, dict) else ()
    digests = [
        str(stamp[2])
        for file, stamp in stamps
        if Path(file).parent == place
        and Path(file).suffix in {".safetensors", ".bin"}
        and isinstance(stamp, list)
        and len(stamp) == 3
    ]
    return tuple(sorted(digests)) or None


def _shares_base(folder: Path, runs: Sequence[Path]) -> bool:
    """Whether another of the runs says that it has the same base."""
    from builder.store import RunStore

    bases = []
    for run in (folder, *(run for run in runs if run != folder)):
        with RunStore(run / "run.duckdb") as store:
            model = store.meta().get("model")
        bases.append(model.get("base") if isinstance(model, dict) else None)
    return bases[0] is not None and bases[0] in bases[1:]
