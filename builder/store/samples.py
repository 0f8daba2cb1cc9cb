"""Which random documents are kept, how far do they reach, and what is in the middle of a direction?

Documents come in the order of a keyed hash of their text, one of each cluster: the first are the
reservoir, the next are held out for scores. Of each sample's window the highest and lowest
activation of every direction are kept; of the reservoir's also the windows that lie at evenly
spaced quantiles of a pole. Only a few samples are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builder.activations.shard_files import SAMPLES_SCHEMA
from builder.errors import StoreError
from builder.records import ACTIVATION_SCALE, CONTENT_ROLES, POLES
from builder.store.examples import check_found
from builder.store.schema import insert_table
from builder.store.shards import Shard

#: Samples of one shard in memory at once; each holds the activations of every direction.
_AT_ONCE = 8

Quantized = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Activations [directions, length] of one window; ``base`` None where it was not scanned."""

    place: int
    tuned: Quantized
    base: Quantized | None


def choose_samples(
    connection: duckdb.DuckDBPyConnection, shards: list[Shard], reservoir: int, held_out: int
) -> None:
    """The table ``samples``: place, split, document and where its row lies in which shard."""
    parts = " UNION ALL ".join(
        f"SELECT {index} AS shard, file_row_number AS row, "
        f"doc_id + {shard.doc_offset} AS doc_id, priority, cluster, piece, start, length "
        f"FROM read_parquet($f{index}, file_row_number = true)"
        for index, shard in enumerate(shards)
    )
    files = {
        f"f{index}": str(shard.folder / "samples.parquet") for index, shard in enumerate(shards)
    }
    connection.execute(
        f"""
        CREATE TEMP TABLE samples AS
        WITH one_each AS (
            SELECT * FROM ({parts}) QUALIFY row_number() OVER (
                PARTITION BY cluster ORDER BY priority, doc_id) = 1
        ), placed AS (
            SELECT *, (row_number() OVER (ORDER BY priority, doc_id) - 1)::INTEGER AS place
            FROM one_each QUALIFY place < {reservoir + held_out}
        )
        SELECT *, CASE WHEN place < {reservoir} THEN 'reservoir' ELSE 'held_out' END AS split
        FROM placed
        """,
        files,
    )
    connection.execute(
        """
        CREATE TEMP TABLE sample_windows (
            shard INTEGER, place INTEGER, source VARCHAR, text VARCHAR, token_lengths UINTEGER[],
            roles UTINYINT[])
        """
    )


def fetch_sample_windows(
    connection: duckdb.DuckDBPyConnection, shards: list[Shard], index: int
) -> None:
    """Adds the texts of one shard's samples to the table ``sample_windows``."""
    connection.execute(
        """
        INSERT INTO sample_windows
        WITH own AS (
            SELECT place, doc_id - $offset AS doc_id, piece, start, length FROM samples
            WHERE shard = $index
        )
        SELECT $index, place, source, window_text(text, token_ends, own.start - first, length),
               window_lengths(token_ends, own.start - first, length),
               roles[own.start - first + 1 : own.start - first + length]
        FROM own JOIN read_parquet($documents) AS pieces USING (doc_id, piece)
        """,
        {
            "index": index,
            "offset": shards[index].doc_offset,
            "documents": str(shards[index].folder / "documents.parquet"),
        },
    )
    check_found(connection, "samples", "sample_windows", shards, index)


def insert_reservoir(connection: duckdb.DuckDBPyConnection) -> None:
    """Fills ``reservoir`` from ``samples``, ``sample_windows`` and ``copies``."""
    connection.execute(
        """
        INSERT INTO reservoir
        SELECT place, split, doc_id, source, start, coalesce(copies.n, 0), text, token_lengths,
               roles
        FROM samples JOIN sample_windows USING (shard, place) LEFT JOIN copies USING (cluster)
        ORDER BY place
        """
    )


def insert_near_duplicates(connection: duckdb.DuckDBPyConnection) -> None:
    """Fills ``near_duplicates`` from ``chosen`` and ``samples``: shown documents of one cluster.

    Each list holds a cluster once, but others may hold it by another document.
    """
    connection.execute(
        """
        INSERT INTO near_duplicates
        SELECT doc_id, min(doc_id) OVER (PARTITION BY cluster) FROM (
            SELECT doc_id, cluster FROM chosen UNION SELECT doc_id, cluster FROM samples)
        QUALIFY count(*) OVER (PARTITION BY cluster) > 1
        ORDER BY doc_id
        """
    )


def insert_peaks_and_quantiles(
    connection: duckdb.DuckDBPyConnection, shards: list[Shard], n_directions: int, quantiles: int
) -> None:
    """Fills ``sample_peaks`` and ``quantile_examples`` from the samples' activations.

    Peaks are over content tokens, or over all where a window has none.
    """
    rows = connection.execute(
        "SELECT shard, row, place, split, roles FROM samples "
        "JOIN sample_windows USING (shard, place) ORDER BY place"
    ).fetchall()
    if not rows:
        return
    content = {place: _content(roles) for _, _, place, _, roles in rows}
    where: dict[int, dict[int, int]] = {}
    for shard, row, place, _, _ in rows:
        where.setdefault(shard, {})[row] = place
    peaks = np.zeros((len(POLES), n_directions, len(rows)), dtype=np.int16)
    for sample in _read_samples(shards, where, n_directions):
        own = sample.tuned[:, content[sample.place]]
        peaks[:, :, sample.place] = own.max(axis=1), own.min(axis=1)
    table = {
        "direction": pa.array(range(n_directions), pa.int32()),
        "highest": _lists(peaks[0]),
        "lowest": _lists(peaks[1]),
    }
    insert_table(connection, "sample_peaks", pa.table(table))
    n = sum(split == "reservoir" for _, _, _, split, _ in rows)
    chosen = _at_quantiles(peaks[:, :, :n], quantiles)
    _insert_quantiles(connection, _read_samples(shards, where, n_directions), chosen, content)


def _content(roles: list[int]) -> npt.NDArray[np.int64]:
    found = np.asarray(roles, dtype=np.uint8)
    own = np.flatnonzero(found < len(CONTENT_ROLES))
    return own if len(own) else np.arange(len(found))


def _lists(values: Quantized) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1]).cast(
        pa.list_(pa.int16())
    )


def _at_quantiles(peaks: Quantized, quantiles: int) -> npt.NDArray[np.int64]:
    """Samples [poles, directions, q] at evenly spaced quantiles, from far off the pole towards it.

    At most one for each sample there is. Equal peaks are ordered by place.
    """
    n = peaks.shape[2]
    count = min(quantiles, n)
    order = np.stack(
        [
            np.argsort(sign * peaks[pole].astype(np.int32), axis=1, kind="stable")
            for pole, sign in enumerate((1, -1))
        ]
    )
    at = ((np.arange(count) + 0.5) * n / max(count, 1)).astype(np.int64)
    chosen: npt.NDArray[np.int64] = order[:, :, at]
    return chosen


def _insert_quantiles(
    connection: duckdb.DuckDBPyConnection,
    samples: Iterator[_Sample],
    chosen: npt.NDArray[np.int64],
    content: dict[int, npt.NDArray[np.int64]],
) -> None:
    if not chosen.size:
        return
    found: list[dict[str, Any]] = []
    for sample in samples:
        own = content[sample.place]
        for pole, direction, place in np.argwhere(chosen == sample.place).tolist():
            values = sample.tuned[direction]
            peak = int(own[(np.argmax, np.argmin)[pole](values[own])])
            found.append(
                {
                    "direction": direction,
                    "pole": pole,
                    "place": place,
                    "sample": sample.place,
                    "value": float(values[peak]) / ACTIVATION_SCALE,
                    "peak": peak,
                    "activations": values,
                    "base_activations": None if sample.base is None else sample.base[direction],
                }
            )
    found.sort(key=lambda row: (row["direction"], row["pole"], row["place"]))
    form = pa.schema(
        [
            ("direction", pa.int32()),
            ("pole", pa.uint8()),
            ("place", pa.int32()),
            ("sample", pa.int32()),
            ("value", pa.float32()),
            ("peak", pa.int32()),
            ("activations", pa.list_(pa.int16())),
            ("base_activations", pa.list_(pa.int16())),
        ]
    )
    insert_table(connection, "quantile_examples", pa.Table.from_pylist(found, schema=form))


def _read_samples(
    shards: list[Shard], where: dict[int, dict[int, int]], n_directions: int
) -> Iterator[_Sample]:
    """The samples' activations; ``where`` gives the place of a shard's row.

    Raises StoreError if there are not as many as directions and tokens.
    """
    for index in sorted(where):
        path = shards[index].folder / "samples.parquet"
        with pq.ParquetFile(path) as file:
            row = 0
            for batch in file.iter_batches(
                batch_size=_AT_ONCE, columns=["length", "activations", "base_activations"]
            ):
                for number in range(batch.num_rows):
                    place = where[index].get(row)
                    row += 1
                    if place is not None:
                        yield _sample(batch, number, place, n_directions, path.parent.name)


def _sample(
    batch: pa.RecordBatch, number: int, place: int, n_directions: int, shard: str
) -> _Sample:
    length = batch["length"][number].as_py()
    values = [
        None if item.values is None else item.values.to_numpy()
        for item in (batch[name][number] for name in SAMPLES_SCHEMA.names[-2:])
    ]
    for value in values:
        if value is not None and len(value) != length * n_directions:
            raise StoreError(
                f"{shard}: samples.parquet holds {len(value)} activations of {length} tokens, not "
                f"those of {n_directions} directions; delete that shard's folder and run the same "
                "command again"
            )
    tuned, base = (
        None if value is None else value.reshape(n_directions, length) for value in values
    )
    assert tuned is not None
    return _Sample(place, tuned, base)
