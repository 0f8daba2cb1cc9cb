"""What will taking the directions read, and how much memory will it need? Told by headers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from builder.config import DirectionSettings, ModelSettings
from builder.records import Hookpoint
from builder.weights.checkpoint import has_tokenizer
from builder.weights.controls import plan_controls
from builder.weights.delta import DeltaSource, stored_bytes
from builder.weights.logit_lens import head_name
from builder.weights.matrix import matrix_shape
from builder.weights.open_source import open_source

#: The interpreter and the libraries, measured; see docs/benchmarks.md.
_LIBRARIES = 300 * 2**20
#: Bytes an entry of the largest matrix takes at worst: the difference in float32 (4), and beside it
#: base weights in float32 (4) and a copy of these in bfloat16 (2) for a control.
_ENTRY = 10
#: Float32 vectors as long as both sides of the largest matrix that are worked with.
_VECTORS = 200


@dataclass(frozen=True, slots=True)
class PlannedMatrix:
    """One matrix: its place, its shape (d_out, d_in), and the stored bytes that are read for it."""

    hookpoint: Hookpoint
    shape: tuple[int, int]
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All matrices in the order they are read in, and the peak memory to expect in bytes."""

    matrices: tuple[PlannedMatrix, ...]
    peak_memory: int
    base: str | None
    facts: dict[str, str]
    #: Bytes that are read besides the matrices' own, by what they are for.
    besides: dict[str, int]

    @property
    def bytes(self) -> int:
        """Stored bytes that are read for all matrices."""
        return sum(matrix.bytes for matrix in self.matrices)


def plan_directions(model: ModelSettings, settings: DirectionSettings) -> Plan:
    """What :func:`~builder.weights.directions.compute_directions` would do; reads no weights.

    Raises the same errors, as far as headers and configurations tell.
    """
    source = open_source(model, settings)
    places = source.hookpoints + (source.readers if settings.matrices == "all" else ())
    matrices = tuple(_planned(source, place) for place in places)
    largest = max((m.shape for m in matrices), key=lambda shape: shape[0] * shape[1])
    entries, sides = largest[0] * largest[1], sum(largest)
    side = min(largest)
    peak = _LIBRARIES + _ENTRY * entries + 4 * _VECTORS * sides
    if settings.matrices == "all":
        peak += 8 * 3 * side * side  # a Gram matrix in float64 and what its eigenvalues take
    base = None if source.base is None else str(source.base)
    return Plan(matrices, peak, base, source.facts, _besides(source, settings))


def _besides(source: DeltaSource, settings: DirectionSettings) -> dict[str, int]:
    plans = plan_controls(source.hookpoints, settings, has_base=source.base is not None)
    controls = sum(
        stored_bytes(source.model, source.match, place)
        for place, plan in plans.items()
        if plan.base
    )
    lens = 0
    if settings.logit_lens_tokens and has_tokenizer(source.model.folder):
        head = head_name(source.model, source.match)
        if head is not None:
            tensors = source.model.tensors
            lens = math.prod(tensors.shape(head)) * tensors.item_size(head)
    found = {"base controls": controls, "promoted and suppressed tokens": lens}
    return {what: size for what, size in found.items() if size}


def _planned(source: DeltaSource, place: Hookpoint) -> PlannedMatrix:
    shape = matrix_shape(source.model, source.match, place)
    return PlannedMatrix(place, shape, source.stored_bytes(place))
