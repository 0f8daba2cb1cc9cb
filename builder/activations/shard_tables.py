"""How is the result of a shard written down? As Parquet files, in memory.

The columns are those of ``shard_files``; whoever holds the run folder puts the bytes there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builder.activations.scan import CountKey, ShardResult, level
from builder.activations.shard_files import (
    COUNTS_SCHEMA,
    DOCUMENTS_SCHEMA,
    EXAMPLES_SCHEMA,
    LEVELS_SCHEMA,
    SAMPLES_SCHEMA,
    STATS_SCHEMA,
    TAIL_SCHEMA,
)
from builder.config import ScanSettings
from builder.records import HISTOGRAM_BINS, LEVELS, ROLES, ROUNDING

#: What is this much below a tail's last value may still be tied with it.
_TIED = 1e-4


def shard_files(result: ShardResult, settings: ScanSettings) -> dict[str, bytes]:
    """The files of a shard by name."""
    tables = {
        "examples": _examples(result, settings.window),
        "documents": _documents(result),
        "stats": _stats(result),
        "tail": _tail(result, settings.tail),
        "levels": _levels(result),
        "samples": _samples(result),
        "counts": _counts(result),
    }
    return {f"{name}.parquet": _parquet(table) for name, table in tables.items()}


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _examples(result: ShardResult, window: int) -> pa.Table:
    found = result.candidates
    piece = {
        (item.document.doc_id, item.piece): item for pieces in result.documents for item in pieces
    }
    items = [piece[key] for key in zip(found.doc_id.tolist(), found.piece.tolist(), strict=True)]
    lengths = np.asarray([len(item.ids) for item in items], dtype=np.int64)
    first = np.asarray([item.first for item in items], dtype=np.int64)
    start = np.maximum(found.position - window, 0)
    stop = np.minimum(found.position + window + 1, lengths)
    column = np.arange(2 * window + 1)[None, :]
    offset = (start - found.position + window)[:, None]
    inside = (column >= offset) & (column < offset + (stop - start)[:, None])
    ends = np.concatenate([[0], np.cumsum(stop - start)]).astype(np.int32)

    def lists(model: int) -> pa.Array:
        if model >= found.windows.shape[1]:
            return pa.nulls(len(found), pa.list_(pa.int16()))
        return pa.ListArray.from_arrays(ends, found.windows[:, model][inside])

    return pa.table(
        [
            pa.array(found.group // 2 // len(ROLES), pa.int32()),
            pa.array(found.group // 2 % len(ROLES), pa.uint8()),
            pa.array(found.group % 2, pa.uint8()),
            found.value,
            found.doc_id,
            found.cluster,
            found.prefix,
            found.piece,
            pa.array(first + found.position, pa.int32()),
            pa.array(first + start, pa.int32()),
            lists(0),
            lists(1),
        ],
        schema=EXAMPLES_SCHEMA,
    )


def _documents(result: ShardResult) -> pa.Table:
    named = {
        *zip(result.candidates.doc_id.tolist(), result.candidates.piece.tolist(), strict=True),
        *((item.piece.document.doc_id, item.piece.piece) for item in result.samples),
    }
    items = [
        item
        for pieces in result.documents
        for item in pieces
        if (item.document.doc_id, item.piece) in named
    ]
    items.sort(key=lambda item: (item.document.doc_id, item.piece))
    return pa.table(
        [
            [item.document.doc_id for item in items],
            [item.piece for item in items],
            [item.first for item in items],
            [item.document.source for item in items],
            [item.text for item in items],
            [item.ends.astype(np.uint32) for item in items],
            [item.roles for item in items],
        ],
        schema=DOCUMENTS_SCHEMA,
    )


def _stats(result: ShardResult) -> pa.Table:
    stats = result.stats
    # By direction, role and model.
    direction, role, model = np.nonzero(stats.n.transpose(1, 2, 0))
    where = (model, direction, role)
    return pa.table(
        [
            pa.array(direction, pa.int32()),
            pa.array(role, pa.uint8()),
            pa.array(model, pa.uint8()),
            stats.n[where],
            stats.total[where],
            stats.squares[where],
            stats.minimum[where],
            stats.maximum[where],
            pa.FixedSizeListArray.from_arrays(stats.counts[where].ravel(), HISTOGRAM_BINS),
        ],
        schema=STATS_SCHEMA,
    )


def _tail(result: ShardResult, size: int) -> pa.Table:
    """The most extreme documents by direction and pole; one of each cluster, its first."""
    documents = [pieces[0].document for pieces in result.documents]
    eligible = np.nonzero([item.is_first for item in documents])[0]
    doc_id = np.asarray([item.doc_id for item in documents], dtype=np.int64)
    cluster = np.asarray([item.cluster for item in documents], dtype=np.uint64)
    by_pole = [
        _most(values[eligible], doc_id[eligible], size)
        for values in (result.extremes.highest, -result.extremes.lowest)
    ]
    n_directions = result.extremes.highest.shape[1]
    direction, pole, place = [], [], []
    for index in range(n_directions):
        for number, chosen in enumerate(by_pole):
            direction += [index] * len(chosen[index])
            pole += [number] * len(chosen[index])
            place.append(eligible[chosen[index]])
    where = np.concatenate(place) if place else np.zeros(0, dtype=np.int64)
    d, p = np.asarray(direction, dtype=np.int64), np.asarray(pole, dtype=np.int64)
    value = np.where(
        p == 0, result.extremes.highest[where, d], result.extremes.lowest[where, d]
    ).astype(np.float32)
    sources = sorted({item.source for item in documents})
    code = {name: number for number, name in enumerate(sources)}
    codes = np.asarray([code[item.source] for item in documents], dtype=np.int32)
    return pa.table(
        [
            pa.array(d, pa.int32()),
            pa.array(p, pa.uint8()),
            value,
            doc_id[where],
            cluster[where],
            pa.DictionaryArray.from_arrays(codes[where], pa.array(sources, pa.string())),
        ],
        schema=TAIL_SCHEMA,
    )


def _most(
    values: npt.NDArray[np.float32], doc_id: npt.NDArray[np.int64], size: int
) -> list[npt.NDArray[np.int64]]:
    """Rows of the ``size`` largest finite values of each column, largest first.

    Documents that begin alike have values that are the same but for rounding: values closer than
    ROUNDING to the next are taken for one, and the lowest document ids among them come first.
    """
    found = []
    for column in values.T:
        rows = np.nonzero(np.isfinite(column))[0]
        if len(rows) > size:
            last = np.partition(column[rows], len(rows) - size)[len(rows) - size]
            rows = rows[column[rows] >= last - _TIED]
        rows = rows[np.argsort(-column[rows], kind="stable")]
        level = np.cumsum(np.diff(column[rows], prepend=column[rows][:1]) < -ROUNDING)
        found.append(rows[np.lexsort((doc_id[rows], level))][:size])
    return found


def _levels(result: ShardResult) -> pa.Table:
    highest, lowest = result.extremes.highest, result.extremes.lowest
    levels = np.asarray([level(p[0].document.priority) for p in result.documents], dtype=np.int64)
    shape = (LEVELS, highest.shape[1])
    most, least = np.full(shape, -np.inf, np.float32), np.full(shape, np.inf, np.float32)
    for number in np.unique(levels):
        most[number] = highest[levels == number].max(axis=0)
        least[number] = lowest[levels == number].min(axis=0)
    direction, where = np.nonzero(np.isfinite(most.T))
    return pa.table(
        [
            pa.array(direction, pa.int32()),
            pa.array(where, pa.uint8()),
            least[where, direction],
            most[where, direction],
        ],
        schema=LEVELS_SCHEMA,
    )


def _samples(result: ShardResult) -> pa.Table:
    items = sorted(
        result.samples, key=lambda s: (s.piece.document.priority, s.piece.document.doc_id)
    )
    with_base = any(len(item.activations) > 1 for item in items)
    columns = [
        [item.piece.document.priority for item in items],
        [item.piece.document.doc_id for item in items],
        [item.piece.document.cluster for item in items],
        [item.piece.piece for item in items],
        [item.piece.first + item.start for item in items],
        [item.activations.shape[2] for item in items],
        [item.activations[0].ravel() for item in items],
        [item.activations[1].ravel() if with_base else None for item in items],
    ]
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, SAMPLES_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=SAMPLES_SCHEMA)


def _counts(result: ShardResult) -> pa.Table:
    def key(row: tuple[CountKey, int]) -> tuple[str, str, int]:
        what, name, layer = row[0]
        return (what, name, -1 if layer is None else layer)

    rows = [
        {"what": what, "name": name, "layer": layer, "n": n}
        for (what, name, layer), n in sorted(result.counts.items(), key=key)
        if n
    ]
    return pa.Table.from_pylist(rows, schema=COUNTS_SCHEMA)
