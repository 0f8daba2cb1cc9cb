"""How large and of what shape is each matrix's change? One Parquet table, a row per matrix.

For notebooks and classifiers: features of magnitude (``frobenius``, ``sigma_1`` ...) and of shape
(``stable_rank``, ``entropy`` ...) stand in columns of their own.
Source: Paul 2026 (arXiv 2604.08844).

Holds no path, time or version of its own; the same spectra give the same bytes.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from builder.records import DirectionSet, Spectrum
from builder.weights.direction_file import write_whole

#: Singular values that have a column.
SIGMAS = 8

#: What does not exist (a floor of nothing rounded, the entropy of a truncated spectrum) is null.
SPECTRA_SCHEMA = pa.schema(
    [
        pa.field("layer", pa.int32(), nullable=False),
        pa.field("matrix", pa.string(), nullable=False),
        pa.field("module", pa.string(), nullable=False),
        pa.field("d_out", pa.int32(), nullable=False),
        pa.field("d_in", pa.int32(), nullable=False),
        pa.field("side", pa.string(), nullable=False),
        pa.field("space", pa.string(), nullable=False),
        pa.field("frobenius", pa.float64()),
        *(pa.field(f"sigma_{place}", pa.float32()) for place in range(1, SIGMAS + 1)),
        pa.field("stable_rank", pa.float64()),
        pa.field("entropy", pa.float64()),
        pa.field("concentration", pa.float64()),
        pa.field("effective_rank", pa.float64()),
        pa.field("is_full", pa.bool_(), nullable=False),
        pa.field("shuffled_floor", pa.float64()),
        pa.field("rounding_floor", pa.float64()),
    ]
)


def save_spectra(path: Path, directions: DirectionSet) -> None:
    """Writes the table at ``path``, in the order of the spectra; it appears whole or not at all.

    Raises StoreError if it cannot be written (no space, no permission).
    """
    rows = [_row(spectrum) for spectrum in directions.spectra]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SPECTRA_SCHEMA), buffer)
    write_whole(path, buffer.getvalue())


def _row(spectrum: Spectrum) -> dict[str, object]:
    sigmas = [float(sigma) for sigma in spectrum.sigmas[:SIGMAS]]
    return {
        "layer": spectrum.hookpoint.layer,
        "matrix": spectrum.hookpoint.writer,
        "module": spectrum.hookpoint.module,
        "d_out": spectrum.shape[0],
        "d_in": spectrum.shape[1],
        "side": spectrum.side,
        "space": spectrum.space,
        "frobenius": _or_null(spectrum.frobenius),
        **{f"sigma_{place}": sigma for place, sigma in enumerate(sigmas, start=1)},
        "stable_rank": _or_null(spectrum.stable_rank),
        "entropy": _or_null(spectrum.entropy),
        "concentration": _or_null(spectrum.concentration),
        "effective_rank": _or_null(spectrum.effective_rank),
        "is_full": spectrum.is_full,
        "shuffled_floor": _or_null(spectrum.shuffled_floor),
        "rounding_floor": _or_null(spectrum.rounding_floor),
    }


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value
