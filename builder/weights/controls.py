"""Which directions show what chance gives? Controls that nothing meaningful wrote.

Random unit directions; the top singular vectors of the base weights, which no fine-tuning wrote;
and those of a weight difference whose entries were shuffled, which keeps their sizes and nothing
else. A layer's base and shuffled controls come from its writers in turn, so that few of them cover
both. They are scanned, labelled and shown by the same code as every other direction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from builder.config import DirectionSettings
from builder.records import Direction, Hookpoint
from builder.weights.svd import matrix_norm, orient, top_singular
from builder.weights.truncated import ROUGH


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """Ranks that are taken as controls of the layer of a hookpoint, by their index there."""

    base: dict[int, int]
    shuffled: dict[int, int]


def plan_controls(
    hookpoints: Sequence[Hookpoint], settings: DirectionSettings, *, has_base: bool
) -> dict[Hookpoint, ControlPlan]:
    """What each hookpoint contributes: control ``i`` of a layer is of its hookpoint ``i`` in turn.

    The turn begins at another hookpoint from layer to layer, and for the two kinds apart.
    """
    plans = {hookpoint: ControlPlan({}, {}) for hookpoint in hookpoints}
    layers: dict[int, list[Hookpoint]] = {}
    for hookpoint in hookpoints:
        layers.setdefault(hookpoint.layer, []).append(hookpoint)
    for layer, places in layers.items():
        for index in range(settings.base_controls if has_base else 0):
            plans[places[(layer + index) % len(places)]].base[index] = index // len(places)
        for index in range(settings.shuffled_controls):
            place = places[(layer + index + 1) % len(places)]
            plans[place].shuffled[index] = index // len(places)
    return plans


def random_direction(seed: int, layer: int, index: int, d_model: int) -> Direction:
    """A control: a uniformly random unit direction that depends on these four numbers alone."""
    key = _key("random", seed, layer, index, d_model)
    vector = _generator(key).standard_normal(d_model)
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    unit *= orient(torch.from_numpy(unit)[:, None]).numpy()
    return Direction(Hookpoint(layer, "random"), index, unit, key.hex(), kind="control")


def base_controls(
    weights: torch.Tensor, hookpoint: Hookpoint, ranks: dict[int, int], content: bytes
) -> Iterator[Direction]:
    """Top left singular vectors of base weights [d_model, d_in], by index in the layer."""
    if ranks:
        yield from _singular("base", weights, hookpoint, ranks, content)


def shuffled_controls(
    delta: torch.Tensor, hookpoint: Hookpoint, ranks: dict[int, int], content: bytes, seed: int
) -> Iterator[Direction]:
    """Top left singular vectors of a weight difference [d_model, d_in] with shuffled entries.

    The difference is shuffled in place where its memory allows.
    """
    if ranks:
        key = _key("shuffled", seed, hookpoint.key)
        yield from _singular(
            "shuffled", shuffled(delta, _generator(key)), hookpoint, ranks, content + key
        )


def shuffled(matrix: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """The same entries in random order; a contiguous matrix on the CPU is overwritten.

    Always drawn on the CPU: a control must not depend on the device.
    """
    values = matrix.cpu()
    generator.shuffle(values.view(-1).numpy())
    return values.to(matrix.device)


def _singular(
    kind: str, matrix: torch.Tensor, hookpoint: Hookpoint, ranks: dict[int, int], content: bytes
) -> Iterator[Direction]:
    # Only somewhere near the top: it takes long to tell the vectors at the edge of noise apart, and
    # as a control one is as good as the other.
    top, frobenius = top_singular(matrix, 1 + max(ranks.values()), ROUGH), matrix_norm(matrix)
    place = Hookpoint(hookpoint.layer, kind, hookpoint.module)
    for index, rank in ranks.items():
        if rank >= len(top.sigma):  # a matrix of smaller rank has no such vector
            continue
        sigma = float(top.sigma[rank])
        yield Direction(
            hookpoint=place,
            rank=index,
            vector=top.u[:, rank].contiguous().numpy(),
            content_hash=_key(kind, content.hex(), rank).hex(),
            kind="control",
            sigma=sigma,
            energy=(sigma / frobenius) ** 2,
            residual=float(top.residual[rank]),
        )


def _key(*parts: object) -> bytes:
    return hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()


def _generator(key: bytes) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(key, "little"))
