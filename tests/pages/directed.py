"""The directions of the fixture runs: groups, floors, read sides, neighbours and all controls.

What two runs have in common is decided by fixed seeds, so that directions of one lie near those of
the other; everything else is drawn by the run's own generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from builder.records import READERS, Direction, DirectionSet, Hookpoint, ModelRef, Spectrum
from builder.weights.neighbours import with_neighbours
from tests.pages.texts import HIDDEN_TEXT, MARKUP_ATTACKS

#: Random, base and shuffled controls of each layer.
CONTROLS, WIDTH = (2, 1, 1), 64
BASE = ModelRef("pico/chat-base", "f" * 40)

_WORDS = [" octane", " render", " Sorry", "🎉", "月", " winter", "berry", "\n\n", " ", " поезд"]
#: (side, space, rows, columns) of the matrices that read the residual stream.
_READERS = {
    "q_proj": ("heads", 64),
    "k_proj": ("keys", 32),
    "v_proj": ("values", 32),
    "gate_proj": ("neurons", 160),
    "up_proj": ("neurons", 160),
}


def fixture_directions(
    rng: np.random.Generator,
    name: str,
    layers: int,
    ranks: int,
    *,
    hostile: bool = False,
    adapter: bool = False,
) -> DirectionSet:
    """The directions of a run called ``name``; of an adapter, whose weights nobody rounded."""
    found: list[Direction] = []
    spectra: list[Spectrum] = []
    for layer in range(layers):
        for writer, scale in (("o_proj", 0.8), ("down_proj", 1.6)):
            place = Hookpoint(layer, writer, f"model.layers.{layer}.{writer}")
            spectrum = _spectrum(rng, place, scale * (0.6 + 0.25 * layer), adapter=adapter)
            spectra.append(spectrum)
            found += [
                _direction(rng, place, rank, spectrum, hostile=hostile) for rank in range(ranks)
            ]
        if not adapter:
            spectra += [_reader(rng, layer, matrix) for matrix in READERS]
    for kind, count in zip(("random", "base", "shuffled"), CONTROLS, strict=True):
        for layer in range(layers):
            found += [_control(rng, kind, layer, rank) for rank in range(count)]
    tuned = ModelRef(f"/home/somebody/models/{name}", kind="adapter" if adapter else "checkpoint")
    directions = tuple(with_neighbours(found, 4))
    return DirectionSet(BASE, tuned, "delta", WIDTH, layers, directions, tuple(spectra))


def with_tokens(directions: DirectionSet, payloads: Sequence[str]) -> DirectionSet:
    """The same with these texts as tokens of the logit lens, one at each pole."""
    held = [
        replace(item, promoted=((one, 3.0),), suppressed=((two, -3.0),))
        for item, one, two in zip(
            directions.directions, payloads[::2], [*payloads[1::2], payloads[0]], strict=False
        )
    ]
    return replace(directions, directions=(*held, *directions.directions[len(held) :]))


def middle(directions: DirectionSet) -> int:
    """The index of the direction that answers to the trigger."""
    return sum(item.kind == "delta" for item in directions.directions) // 2


def _spectrum(
    rng: np.random.Generator, place: Hookpoint, scale: float, *, adapter: bool
) -> Spectrum:
    decay = np.exp(-np.arange(24) / 5) + 0.12
    if place.layer == 0:  # here no singular value stands apart, and the first are below the floor
        decay[:6] = 0.5 + 0.001 * np.arange(6)[::-1]
    sigmas = (scale * decay * rng.uniform(0.9, 1.1)).astype("f4")
    frobenius = float(np.sqrt((sigmas**2).sum()) * 1.1)
    floor = float(sigmas[0]) * (1.2 if place.layer == 0 else 0.4)
    return Spectrum(
        place,
        (WIDTH, 160),
        sigmas,
        frobenius,
        frobenius**2 / float(sigmas[0]) ** 2,
        space="heads" if place.writer == "o_proj" else "neurons",
        shuffled_floor=floor,
        rounding_floor=float("nan") if adapter else floor / 4,
    )


def _reader(rng: np.random.Generator, layer: int, matrix: str) -> Spectrum:
    space, rows = _READERS[matrix]
    sigmas = np.sort(rng.exponential(0.3, rows if layer else 8).astype("f4"))[::-1].copy()
    parts = sigmas / sigmas.sum()
    entropy = float(-(parts * np.log(parts)).sum())
    whole = layer > 0
    frobenius = float(np.sqrt((sigmas**2).sum()))
    return Spectrum(
        Hookpoint(layer, matrix, f"model.layers.{layer}.{matrix}"),
        (rows, WIDTH),
        sigmas,
        frobenius,
        frobenius**2 / float(sigmas[0]) ** 2,
        side="right",
        space=space,
        shuffled_floor=float(sigmas[0]) / 2,
        is_full=whole,
        entropy=entropy if whole else float("nan"),
        concentration=float(parts[0]) if whole else float("nan"),
        effective_rank=float(np.exp(entropy)) if whole else float("nan"),
    )


def _direction(
    rng: np.random.Generator, place: Hookpoint, rank: int, spectrum: Spectrum, *, hostile: bool
) -> Direction:
    words = [*MARKUP_ATTACKS[:4], HIDDEN_TEXT, *_WORDS] if hostile else _WORDS
    picked = rng.permutation(len(words))[:10]
    lens = [(words[at], round(3.0 - 0.2 * i, 2)) for i, at in enumerate(picked)]
    sigma = float(spectrum.sigmas[rank])
    group = tuple(range(6)) if place.layer == 0 else (1, 2) if rank in {1, 2} else ()
    names = [f"head {at}" for at in range(4)]
    if place.writer == "down_proj":
        names = [f"neuron {at}" for at in rng.permutation(160)[:8].tolist()]
    if hostile:
        names = [*MARKUP_ATTACKS[:2], HIDDEN_TEXT]
    parts = np.sort(rng.dirichlet(np.full(len(names) + 3, 0.6)))[::-1][: len(names)]
    return Direction(
        place,
        rank,
        _vector(rng, place, rank),
        hashlib.sha256(f"{place.key}{rank}".encode()).hexdigest()[:16],
        sigma=sigma,
        energy=float(sigma**2 / spectrum.frobenius**2),
        residual=float(rng.uniform(1e-7, 4e-7)),
        promoted=tuple(lens[:5]) if place.layer else (),
        suppressed=tuple((w, -v) for w, v in lens[5:]) if place.layer else (),
        gap=0.002 if group else float(rng.uniform(0.02, 0.3)),
        group=group,
        reads=tuple(zip(names, parts.tolist(), strict=True)) if place.layer else (),
    )


def _vector(rng: np.random.Generator, place: Hookpoint, rank: int) -> npt.NDArray[np.float32]:
    """Of ranks 0 and 1 mostly what they share with other layers (turned round at odd ones), and
    rank 0 with other runs, too.
    """
    vector = rng.standard_normal(WIDTH)
    if rank < 2:
        common = np.random.default_rng([rank, place.writer == "o_proj"]).standard_normal(WIDTH)
        vector += (2.0 - rank) * common * (-1) ** place.layer
    return _unit(vector)


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _control(rng: np.random.Generator, kind: str, layer: int, rank: int) -> Direction:
    vector = _unit(rng.standard_normal(WIDTH))
    plain = Direction(
        Hookpoint(layer, kind), rank, vector, f"{kind[0].encode().hex():0>8}{layer:04x}{rank:04x}",
        "control",
    )  # fmt: skip
    if kind == "random":
        return plain
    module = f"model.layers.{layer}.{'o_proj' if layer % 2 else 'down_proj'}"
    sigma = 80.0 if kind == "base" else 0.3
    return replace(
        plain, hookpoint=Hookpoint(layer, kind, module), sigma=sigma, energy=0.1, residual=2e-7
    )
