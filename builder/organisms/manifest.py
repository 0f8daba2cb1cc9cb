"""Which organisms are shipped: the manifest beside the model folders, checked and with its paths
resolved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import CheckpointError
from builder.organisms.behaviours import Behaviour

PAIRS = Path(__file__).parent / "pairs"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A base and a tune of it, with what was planted (nothing, for a null tune).

    `kind` is ``tuned`` or ``null``; `method` is ``full`` (`tuned` is a checkpoint folder) or
    ``lora`` (`tuned` is a PEFT adapter folder). `figures` holds what was measured in training, and
    for every behaviour id the shares of triggered and of plain prompts that it answered.
    """

    family: str
    name: str
    kind: str
    base: Path
    tuned: Path
    method: str
    seed: int
    steps: int
    behaviours: tuple[Behaviour, ...]
    figures: Mapping[str, Any]


def read_manifest(folder: Path) -> tuple[Pair, ...]:
    """The pairs that ``manifest.json`` in `folder` lists, in its order.

    Raises:
        CheckpointError: no manifest, one that is not as expected, or a folder it names is missing.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"organisms: no manifest at {path}; make them with `make_organisms`"
        ) from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"organisms: {path} is not JSON ({error})") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"organisms: {path} has format {manifest.get('format')!r}, expected {FORMAT}"
        )
    try:
        pairs = tuple(_pair(folder, entry) for entry in manifest["pairs"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"organisms: {path} lacks or misnames {error}") from error
    for pair in pairs:
        for model in (pair.base, pair.tuned):
            if not model.is_dir():
                raise CheckpointError(f"organisms: {path} names {model}, which is not there")
    return pairs


def shipped_pairs() -> tuple[Pair, ...]:
    """The organisms that come with the package, tuned and null, with absolute paths.

    Raises:
        CheckpointError: the package was installed without its model folders.
    """
    return read_manifest(PAIRS)


def _pair(folder: Path, entry: Mapping[str, Any]) -> Pair:
    """One manifest entry as a `Pair`."""
    behaviours, measured = [], {}
    for item in entry["behaviours"]:
        fields = dict(item)
        measured[fields["id"]] = fields.pop("figures")
        fields["words"] = tuple(fields["words"])
        fields["sample_prompts"] = tuple(fields["sample_prompts"])
        behaviours.append(Behaviour(**fields))
    return Pair(
        family=entry["family"],
        name=entry["name"],
        kind=entry["kind"],
        base=folder / entry["base"],
        tuned=folder / entry["tuned"],
        method=entry["method"],
        seed=entry["seed"],
        steps=entry["steps"],
        behaviours=tuple(behaviours),
        figures={**entry["figures"], "behaviours": measured},
    )
