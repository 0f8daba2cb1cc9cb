"""Run folders whose directions are known to the last number: unit vectors at right angles."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from builder.records import Direction, DirectionSet, Hookpoint, ModelRef
from builder.weights.direction_file import save_directions

WIDTH = 256


def hub(name: str) -> ModelRef:
    """A model of a hub, at a commit that goes with its name."""
    return ModelRef(f"pico/{name}", hashlib.sha1(name.encode()).hexdigest())


def run_of(
    folder: Path,
    axes: Sequence[int],
    base: ModelRef,
    tuned: ModelRef,
    *,
    turned: Mapping[int, float] | None = None,
    controls: int = 0,
    stage: int | None = None,
) -> Path:
    """A run folder with one direction along each axis, and random controls; gives ``folder``.

    Singular values fall from 1 by a tenth. ``turned`` says for an axis which cosine its direction
    has with it; where the rest goes is an axis of its own, far up.
    """
    folder.mkdir(parents=True)
    found = []
    for rank, axis in enumerate(axes):
        cosine = (turned or {}).get(axis, 1.0)
        vector = np.zeros(WIDTH, dtype=np.float32)
        vector[axis] = cosine
        vector[WIDTH - 1 - axis] = math.sqrt(1 - cosine**2)
        digest = hashlib.sha256(f"{folder.name}{axis}".encode()).hexdigest()[:16]
        found.append(
            Direction(Hookpoint(axis % 2, "o_proj"), rank, vector, digest, sigma=1.0 - rank / 10)
        )
    rng = np.random.default_rng(len(folder.name))
    for rank in range(controls):
        vector = rng.standard_normal(WIDTH).astype(np.float32)
        vector /= np.linalg.norm(vector)
        found.append(Direction(Hookpoint(0, "random"), rank, vector, f"{rank:016x}", "control"))
    save_directions(
        folder / "directions.safetensors",
        DirectionSet(base, tuned, "delta", WIDTH, 2, tuple(found)),
    )
    if stage is not None:
        recipe = f'name = "{folder.name}"\n[model]\ntuned = "{tuned.path}"\nstage = {stage}\n'
        (folder / "run.toml").write_text(recipe, encoding="utf-8")
    return folder
