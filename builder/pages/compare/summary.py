"""What is in common, in figures? A group's matrix, pairs and stages as values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder.pages.compare.groups import Group, Line, Pair
from builder.pages.compare.stages import lineages, steps


def summary(groups: Sequence[Group]) -> dict[str, Any]:
    """``groups``, each with ``runs``, ``matrix``, ``pairs``, ``lines`` and ``missing``.

    Runs go by the name of their folder, or by its path where two have one name. Shares and cosines
    are rounded to six decimals; a match names id and content hash of both directions.
    """
    return {"groups": [_group(group) for group in groups]}


def _group(group: Group) -> dict[str, Any]:
    names = _names([*group.runs, *(folder for folder, _ in group.missing)])
    matrix = []
    for run in group.runs:
        cells: list[dict[str, float] | None] = []
        for other in group.runs:
            if run == other:
                cells.append(None)
                continue
            pair = group.pair(run, other)
            share, energy = pair.share(pair.one), pair.one.energy
            cells.append({"share": round(share, 6), "energy": round(energy, 6)})
        matrix.append(cells)
    return {
        "runs": [names[run] for run in group.runs],
        "matrix": matrix,
        "pairs": [_pair(pair, names) for pair in group.pairs],
        "lines": [_line(group, line, names) for line in group.lines],
        "missing": {names[folder]: why for folder, why in group.missing},
    }


def _names(runs: Sequence[Path]) -> dict[Path, str]:
    short = [run.resolve().name for run in runs]
    return {
        run: name if short.count(name) == 1 else str(run)
        for run, name in zip(runs, short, strict=True)
    }


def _pair(pair: Pair, names: dict[Path, str]) -> dict[str, Any]:
    return {
        "level": round(pair.level, 6),
        "sides": [
            {
                "run": names[side.run],
                "directions": len(side.nearest),
                "near": len(pair.covered(side)),
                "beside": pair.beside(side),
                "only": len(pair.only(side)),
                "controls": {
                    kind: {"matched": n, "count": count}
                    for kind, (n, count) in pair.control_matches(side).items()
                },
            }
            for side in (pair.one, pair.two)
        ],
        "matches": [
            {"one": list(match.one), "two": list(match.two), "cosine": round(match.cosine, 6)}
            for match in pair.matches
        ],
    }


def _line(group: Group, line: Line, names: dict[Path, str]) -> dict[str, Any]:
    found = steps(group, line)
    followed = lineages(found)
    return {
        "runs": [names[run] for run in line.runs],
        "known_by": line.known_by,
        "one_base": line.one_base,
        "steps": [
            {
                "one": names[step.pair.one.run],
                "two": names[step.pair.two.run],
                "kept": step.kept,
                "rotated": step.rotated,
                "beside": step.beside,
                "vanished": len(step.vanished),
                "born": len(step.born),
                "beside_new": step.beside_new,
            }
            for step in found
        ],
        "followed": len(followed),
        "through": sum(len(lineage.keys) == len(line.runs) for lineage in followed),
    }
