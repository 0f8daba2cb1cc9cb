"""How is a DirectionSet kept on disk? One safetensors file, read without torch.

Tensors: ``vectors`` [n, d_model] and ``sigmas`` (all spectra, one after another), float32, and
``checksum`` [16] uint8 over everything else. The header's metadata holds the rest as JSON under one
key, ``columns`` (the order of several would change from file to file). Written beside and renamed,
so that a file that exists is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from builder.errors import DiskFullError, StoreError, is_disk_full
from builder.records import Direction, DirectionSet, Hookpoint, Kind, ModelRef, Side, Spectrum

_FORMAT = "weightatlas directions 2"
_AGAIN = "remove it and run 'weightatlas directions' again"


class _Row(BaseModel):
    """JSON from a file, which may say anything."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Format(BaseModel):
    """What a file says it is, whatever else it holds."""

    format: str


class _Ref(_Row):
    path: str
    revision: str | None
    kind: Literal["checkpoint", "adapter"]


class _Place(_Row):
    layer: NonNegativeInt
    writer: str
    module: str


class _DirectionRow(_Row):
    hookpoint: _Place
    rank: NonNegativeInt
    content_hash: str
    kind: Kind
    sigma: float | None
    energy: float | None
    residual: float | None
    promoted: list[tuple[str, float]]
    suppressed: list[tuple[str, float]]
    gap: float | None
    group: list[NonNegativeInt]
    reads: list[tuple[str, float]]
    neighbours: list[tuple[str, float]]


class _SpectrumRow(_Row):
    hookpoint: _Place
    shape: tuple[NonNegativeInt, NonNegativeInt]
    count: NonNegativeInt
    frobenius: float
    stable_rank: float
    side: Side
    space: str
    shuffled_floor: float | None
    rounding_floor: float | None
    is_full: bool
    entropy: float | None
    concentration: float | None
    effective_rank: float | None


class _Columns(_Row):
    format: str
    base: _Ref | None
    tuned: _Ref
    method: str
    d_model: int
    n_layers: int
    facts: dict[str, str]
    directions: list[_DirectionRow]
    spectra: list[_SpectrumRow]


def save_directions(path: Path, directions: DirectionSet) -> None:
    """Writes the file at ``path``; it appears whole or not at all.

    Raises StoreError if it cannot be written (no space, no permission).
    """
    vectors = np.zeros((len(directions.directions), directions.d_model), dtype=np.float32)
    for place, direction in enumerate(directions.directions):
        vectors[place] = direction.vector
    sigmas = [spectrum.sigmas.astype(np.float32) for spectrum in directions.spectra]
    arrays = {
        "vectors": vectors,
        "sigmas": np.concatenate([np.zeros(0, dtype=np.float32), *sigmas]),
    }
    columns = json.dumps(_columns(directions), allow_nan=False)
    content = arrays | {"checksum": _checksum(columns, arrays)}
    write_whole(path, save(content, metadata={"columns": columns}))


def write_whole(path: Path, data: bytes) -> None:
    """Puts ``data`` at ``path``, whole or not at all; raises StoreError if that cannot be done."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if is_disk_full(error):
            raise DiskFullError(f"{path}: no space left; free some and run again") from error
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_directions(path: Path) -> DirectionSet:
    """The directions in a file of :func:`save_directions`, exactly as they were saved.

    Raises StoreError, with what to do, if there is no such file or it is damaged.
    """
    try:
        columns, arrays = _read(path)
    except FileNotFoundError as error:
        raise StoreError(
            f"{path}: no such file; 'weightatlas directions' makes it from the weights"
        ) from error
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: is damaged ({error}); {_AGAIN}") from error
    try:
        # First of all: a file of another format has other columns.
        form = _Format.model_validate_json(columns).format
        if form != _FORMAT:
            raise StoreError(f"{path}: holds {form!r}, this is {_FORMAT!r}; {_AGAIN}")
        table = _Columns.model_validate_json(columns)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise StoreError(f"{path}: is damaged ({where}: {fault['msg']}); {_AGAIN}") from error
    vectors, sigmas = arrays["vectors"], arrays["sigmas"]
    if vectors.shape != (len(table.directions), table.d_model) or len(sigmas) != sum(
        row.count for row in table.spectra
    ):
        raise StoreError(f"{path}: is damaged (its arrays do not fit its columns); {_AGAIN}")
    return _directions(table, vectors, sigmas)


def _read(path: Path) -> tuple[str, dict[str, npt.NDArray[np.float32]]]:
    """The columns and the two arrays, checked; what is wrong comes as an error named above."""
    with safe_open(str(path), framework="np") as file:
        columns = (file.metadata() or {})["columns"]
        if set(file.keys()) != {"vectors", "sigmas", "checksum"}:
            raise ValueError("it holds other arrays")
        arrays = {name: np.array(file.get_tensor(name)) for name in ("vectors", "sigmas")}
        checksum = np.array(file.get_tensor("checksum"))
    if any(array.dtype != np.float32 for array in arrays.values()):
        raise ValueError("its arrays are not float32")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("its arrays hold what is no number")
    if not np.array_equal(checksum, _checksum(columns, arrays)):
        raise ValueError("its checksum does not fit")
    return columns, arrays


def _checksum(columns: str, arrays: dict[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.uint8]:
    state = hashlib.blake2b(columns.encode(), digest_size=16)
    for name in ("vectors", "sigmas"):
        state.update(np.ascontiguousarray(arrays[name]).tobytes())
    return np.frombuffer(state.digest(), dtype=np.uint8)


def _columns(directions: DirectionSet) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "base": asdict(directions.base) if directions.base is not None else None,
        "tuned": asdict(directions.tuned),
        "method": directions.method,
        "d_model": directions.d_model,
        "n_layers": directions.n_layers,
        "facts": directions.facts,
        "directions": [
            {
                "hookpoint": asdict(direction.hookpoint),
                "rank": direction.rank,
                "content_hash": direction.content_hash,
                "kind": direction.kind,
                "sigma": _or_null(direction.sigma),
                "energy": _or_null(direction.energy),
                "residual": _or_null(direction.residual),
                "promoted": direction.promoted,
                "suppressed": direction.suppressed,
                "gap": _or_null(direction.gap),
                "group": direction.group,
                "reads": direction.reads,
                "neighbours": direction.neighbours,
            }
            for direction in directions.directions
        ],
        "spectra": [
            {
                "hookpoint": asdict(spectrum.hookpoint),
                "shape": spectrum.shape,
                "count": len(spectrum.sigmas),
                "frobenius": spectrum.frobenius,
                "stable_rank": spectrum.stable_rank,
                "side": spectrum.side,
                "space": spectrum.space,
                "shuffled_floor": _or_null(spectrum.shuffled_floor),
                "rounding_floor": _or_null(spectrum.rounding_floor),
                "is_full": spectrum.is_full,
                "entropy": _or_null(spectrum.entropy),
                "concentration": _or_null(spectrum.concentration),
                "effective_rank": _or_null(spectrum.effective_rank),
            }
            for spectrum in directions.spectra
        ],
    }


def _directions(
    table: _Columns, vectors: npt.NDArray[np.float32], sigmas: npt.NDArray[np.float32]
) -> DirectionSet:
    directions = tuple(
        Direction(
            hookpoint=Hookpoint(**dict(row.hookpoint)),
            rank=row.rank,
            vector=vectors[place],
            content_hash=row.content_hash,
            kind=row.kind,
            sigma=_or_nan(row.sigma),
            energy=_or_nan(row.energy),
            residual=_or_nan(row.residual),
            promoted=tuple(row.promoted),
            suppressed=tuple(row.suppressed),
            gap=_or_nan(row.gap),
            group=tuple(row.group),
            reads=tuple(row.reads),
            neighbours=tuple(row.neighbours),
        )
        for place, row in enumerate(table.directions)
    )
    spectra, start = [], 0
    for spectrum in table.spectra:
        spectra.append(
            Spectrum(
                hookpoint=Hookpoint(**dict(spectrum.hookpoint)),
                shape=spectrum.shape,
                sigmas=sigmas[start : start + spectrum.count],
                frobenius=spectrum.frobenius,
                stable_rank=spectrum.stable_rank,
                side=spectrum.side,
                space=spectrum.space,
                shuffled_floor=_or_nan(spectrum.shuffled_floor),
                rounding_floor=_or_nan(spectrum.rounding_floor),
                is_full=spectrum.is_full,
                entropy=_or_nan(spectrum.entropy),
                concentration=_or_nan(spectrum.concentration),
                effective_rank=_or_nan(spectrum.effective_rank),
            )
        )
        start += spectrum.count
    return DirectionSet(
        base=ModelRef(**dict(table.base)) if table.base is not None else None,
        tuned=ModelRef(**dict(table.tuned)),
        method=table.method,
        d_model=table.d_model,
        n_layers=table.n_layers,
        directions=directions,
        spectra=tuple(spectra),
        facts=table.facts,
    )


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
