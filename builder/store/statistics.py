"""How are activations distributed, how far did tuning move them, is the corpus large enough?

Sums of integers are exact whatever the order; sums of floats are equal within rounding. One shard
is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.activations.shard_files import STATS_SCHEMA, read_shard_file
from builder.records import CONTENT_ROLES, HISTOGRAM_BINS, LEVELS, MODELS, POLES
from builder.store.schema import insert_table
from builder.store.shards import Shard

#: Doublings of the corpus over which it is asked whether an extreme still rises.
DOUBLINGS = 3

_TUNED, _BASE, _DIFFERENCE = (MODELS.index(name) for name in ("tuned", "base", "difference"))

Floats = npt.NDArray[np.float64]


@dataclass(slots=True, eq=False)
class _Sums:
    """Of all directions, for one role and model."""

    n: npt.NDArray[np.int64]
    total: Floats
    squares: Floats
    minimum: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, n_directions: int) -> _Sums:
        return cls(
            n=np.zeros(n_directions, dtype=np.int64),
            total=np.zeros(n_directions),
            squares=np.zeros(n_directions),
            minimum=np.full(n_directions, np.inf, dtype=np.float32),
            maximum=np.full(n_directions, -np.inf, dtype=np.float32),
            counts=np.zeros((n_directions, HISTOGRAM_BINS), dtype=np.int64),
        )

    def mean(self) -> Floats:
        """Mean [n_directions]; NaN without tokens."""
        return _ratio(self.total, self.n)

    def std(self) -> Floats:
        """Standard deviation [n_directions]; NaN without tokens."""
        return _spread(self.n, self.total, self.squares)


def _ratio(top: npt.NDArray[np.generic], bottom: npt.NDArray[np.int64]) -> Floats:
    found: Floats = np.full(len(bottom), np.nan)
    np.divide(top, bottom, out=found, where=bottom > 0)
    return found


def _spread(n: npt.NDArray[np.int64], total: Floats, squares: Floats) -> Floats:
    spread: Floats = np.sqrt(np.maximum(_ratio(squares, n) - _ratio(total, n) ** 2, 0.0))
    return spread


@dataclass(slots=True, eq=False)
class StatsMerge:
    """Adds up the shards' histograms and moments, by role and model."""

    n_directions: int
    sums: dict[tuple[int, int], _Sums] = field(default_factory=dict)

    def add(self, shard: Shard) -> None:
        """Adds one shard's statistics; raises StoreError if they cannot be read."""
        table = read_shard_file(shard.folder, "stats.parquet", STATS_SCHEMA)
        columns = {name: table[name].to_numpy() for name in STATS_SCHEMA.names if name != "counts"}
        counts = table["counts"].combine_chunks().flatten().to_numpy().reshape(-1, HISTOGRAM_BINS)
        kinds = columns["role"].astype(np.int64) * len(MODELS) + columns["model"]
        for kind in np.unique(kinds).tolist():
            rows = np.flatnonzero(kinds == kind)
            at = columns["direction"][rows]
            sums = self.sums.setdefault(divmod(kind, len(MODELS)), _Sums.of(self.n_directions))
            for name in ("n", "total", "squares"):
                getattr(sums, name)[at] += columns[name][rows]
            sums.minimum[at] = np.minimum(sums.minimum[at], columns["minimum"][rows])
            sums.maximum[at] = np.maximum(sums.maximum[at], columns["maximum"][rows])
            sums.counts[at] += counts[rows]

    def insert(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Fills ``ranges``, ``histograms`` and ``shifts``."""
        for (role, model), sums in sorted(self.sums.items()):
            at = np.flatnonzero(sums.n)
            key = {
                "direction": pa.array(at, pa.int32()),
                "role": pa.array(np.full(len(at), role), pa.uint8()),
                "model": pa.array(np.full(len(at), model), pa.uint8()),
            }
            extents = {name: getattr(sums, name)[at] for name in ("n", "minimum", "maximum")}
            moments = {"mean": sums.mean()[at], "std": sums.std()[at]}
            insert_table(connection, "ranges", pa.table({**key, **extents, **moments}))
            lists = pa.FixedSizeListArray.from_arrays(sums.counts[at].ravel(), HISTOGRAM_BINS)
            insert_table(connection, "histograms", pa.table({**key, "counts": lists}))
        for role in sorted({role for role, model in self.sums if model == _DIFFERENCE}):
            self._insert_shifts(connection, role)

    def _insert_shifts(self, connection: duckdb.DuckDBPyConnection, role: int) -> None:
        tuned, base, moved = (
            self.sums.get((role, model), _Sums.of(self.n_directions))
            for model in (_TUNED, _BASE, _DIFFERENCE)
        )
        at = np.flatnonzero((tuned.n > 0) & (base.n > 0) & (moved.n > 0))
        table = {
            "direction": pa.array(at, pa.int32()),
            "role": pa.array(np.full(len(at), role), pa.uint8()),
            "n": moved.n[at],
            "mean": moved.mean()[at],
            "std": moved.std()[at],
            "outside": _outside(tuned, base)[at],
        }
        insert_table(connection, "shifts", pa.table(table))

    def content_spread(self) -> Floats:
        """Standard deviation [n_directions] of the tuned model's activations in content tokens."""
        own = [
            sums
            for (role, model), sums in sorted(self.sums.items())
            if model == _TUNED and role < len(CONTENT_ROLES)
        ]
        n = np.zeros(self.n_directions, dtype=np.int64)
        total, squares = np.zeros((2, self.n_directions))
        for sums in own:
            n += sums.n
            total += sums.total
            squares += sums.squares
        return _spread(n, total, squares)


def _outside(tuned: _Sums, base: _Sums) -> Floats:
    """Share of the tuned model's tokens [n_directions] beyond the base's least and greatest value.

    Counted by bins that lie wholly beyond, so a lower bound: tokens in the bin in which the base's
    extreme lies do not count. Rounding of a bin's edge is allowed for.
    """
    edges = np.linspace(-1, 1, HISTOGRAM_BINS + 1)
    slack = 1e-6
    above = edges[None, :-1] >= base.maximum[:, None] - slack
    below = edges[None, 1:] <= base.minimum[:, None] + slack
    return _ratio((tuned.counts * (above | below)).sum(axis=1), tuned.n)


def insert_saturation(
    connection: duckdb.DuckDBPyConnection,
    shards: Sequence[Shard],
    spread: Floats,
    documents: Mapping[int, int],
) -> None:
    """Fills ``saturation``: the extremes over random shares of the corpus, each twice the last.

    ``documents`` is the number of documents in each level. The share 2^-l holds the levels from l
    on. ``gain`` is what a doubling added to the extreme over the last DOUBLINGS shares, in
    standard deviations of content tokens (``spread``): one alone adds nothing half of the time,
    whatever the distribution. Unknown where there are fewer shares.
    """
    if not shards:
        return
    low, high = np.full((2, len(spread), LEVELS), np.nan, dtype=np.float32)
    found = connection.execute(
        "SELECT direction, level, min(minimum) AS low, max(maximum) AS high "
        "FROM read_parquet($files) GROUP BY direction, level",
        {"files": [str(shard.folder / "levels.parquet") for shard in shards]},
    ).fetchnumpy()
    at = (found["direction"], found["level"])
    low[at], high[at] = found["low"], found["high"]
    held = np.asarray([documents.get(level, 0) for level in range(LEVELS)], dtype=np.int64)
    sizes = np.cumsum(held[::-1])
    # fmin and fmax pass over levels without tokens.
    reached = (np.fmax.accumulate(high[:, ::-1], axis=1), np.fmin.accumulate(low[:, ::-1], axis=1))
    rows: dict[str, list[object]] = {
        name: [] for name in ("direction", "pole", "documents", "extremes", "gain")
    }
    for direction in range(len(spread)):
        for pole in range(len(POLES)):
            known = np.isfinite(reached[pole][direction]) & (held[::-1] > 0)
            extremes = reached[pole][direction][known].tolist()
            if not extremes:
                continue
            gain, shares = None, sizes[known]
            if len(extremes) > DOUBLINGS:
                # In a small corpus the shares, dealt at random, may be far from doublings.
                doublings = np.log2(shares[-1] / shares[-1 - DOUBLINGS])
                gain = float(abs(extremes[-1] - extremes[-1 - DOUBLINGS]) / doublings)
            one = float(spread[direction])
            rows["direction"].append(direction)
            rows["pole"].append(pole)
            rows["documents"].append(shares.tolist())
            rows["extremes"].append(extremes)
            rows["gain"].append(None if gain is None or not one > 0 else gain / one)
    form = pa.schema(
        [
            ("direction", pa.int32()),
            ("pole", pa.uint8()),
            ("documents", pa.list_(pa.int64())),
            ("extremes", pa.list_(pa.float32())),
            ("gain", pa.float64()),
        ]
    )
    insert_table(connection, "saturation", pa.table(rows, schema=form))
