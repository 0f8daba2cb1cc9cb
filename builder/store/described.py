"""What does the database say of the directions themselves? Their rows, spectra and facts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from builder.records import DirectionSet
from builder.store.schema import insert_rows, insert_table


def insert_meta(connection: duckdb.DuckDBPyConnection, meta: Mapping[str, Any]) -> None:
    """Puts the run's facts into ``meta``, as JSON by key."""
    insert_rows(connection, "meta", [(key, json.dumps(meta[key])) for key in sorted(meta)])


def insert_directions(connection: duckdb.DuckDBPyConnection, directions: DirectionSet) -> None:
    """Puts everything but the vectors into ``directions`` and ``spectra``."""
    tokens = ("token", "logit", pa.float32())
    items = directions.directions
    table = pa.table(
        {
            "direction": pa.array(range(len(items)), pa.int32()),
            "id": [item.id for item in items],
            "content_hash": [item.content_hash for item in items],
            "layer": pa.array([item.hookpoint.layer for item in items], pa.int32()),
            "writer": [item.hookpoint.writer for item in items],
            "module": [item.hookpoint.module for item in items],
            "rank": pa.array([item.rank for item in items], pa.int32()),
            "kind": [item.kind for item in items],
            "sigma": pa.array([_finite(item.sigma) for item in items], pa.float64()),
            "energy": pa.array([_finite(item.energy) for item in items], pa.float64()),
            "residual": pa.array([_finite(item.residual) for item in items], pa.float64()),
            "promoted": _pairs([item.promoted for item in items], *tokens),
            "suppressed": _pairs([item.suppressed for item in items], *tokens),
            "gap": pa.array([_finite(item.gap) for item in items], pa.float64()),
            "group_ranks": pa.array([item.group for item in items], pa.list_(pa.int32())),
            "reads": _pairs([item.reads for item in items], "source", "share", pa.float64()),
            "neighbours": _pairs([i.neighbours for i in items], "id", "cosine", pa.float64()),
        }
    )
    insert_table(connection, "directions", table)
    insert_rows(
        connection,
        "spectra",
        [
            (
                item.hookpoint.layer,
                item.hookpoint.writer,
                item.hookpoint.module,
                *item.shape,
                item.side,
                item.space,
                item.frobenius,
                _finite(item.stable_rank),
                item.sigmas.tolist(),
                item.is_full,
                _finite(item.entropy),
                _finite(item.concentration),
                _finite(item.effective_rank),
                _finite(item.shuffled_floor),
                _finite(item.rounding_floor),
            )
            for item in directions.spectra
        ],
    )


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _pairs(
    rows: Sequence[Sequence[tuple[str, float]]], name: str, number: str, kind: pa.DataType
) -> pa.Array:
    """A list of (name, number) per row, as DuckDB takes it in."""
    form = pa.list_(pa.struct([(name, pa.string()), (number, kind)]))
    return pa.array([[{name: text, number: value} for text, value in row] for row in rows], form)
