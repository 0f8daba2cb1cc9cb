"""What do all directions of a run have in common? One query each, over a whole run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from builder.records import CONTENT_ROLES, HISTOGRAM_BINS, MODELS, POLES
from builder.store.database import Database
from builder.store.example_tables import arrays
from builder.store.rows import Bulk, Saturation, SourceShare

#: Histograms that are in memory at once; each takes 3 kB.
_BATCH = 2048
#: The bulk leaves out one content token in ten thousand at each pole. In a small corpus that is a
#: handful, fewer than one behaviour has, so at least LEAST_RARE, but no more than one in a hundred.
RARE, LEAST_RARE, MOST_RARE = 1e-4, 1000, 1e-2

Floats = npt.NDArray[np.float64]


class OverviewTables(Database):
    """A run's database with what is asked of all directions at once."""

    def bulks(self) -> dict[str, Bulk]:
        """By direction, where the bulk of the tuned model's content tokens ends at each pole.

        Directions without content tokens are left out. All histograms are read once and summed
        over roles, batch by batch.
        """
        found = self._connection.execute(
            "SELECT direction, id, sum(n)::BIGINT AS n, sum(n * mean) / sum(n) AS mean, "
            "sum(n * (std * std + mean * mean)) / sum(n) AS square, "
            "min(minimum)::DOUBLE AS low, max(maximum)::DOUBLE AS high "
            "FROM ranges JOIN directions USING (direction) WHERE model = ? AND role < ? "
            "GROUP BY direction, id ORDER BY direction",
            [MODELS.index("tuned"), len(CONTENT_ROLES)],
        ).fetchnumpy()
        if not len(found["direction"]):
            return {}
        counts = self._content_histograms(int(found["direction"].max()) + 1)[found["direction"]]
        n, mean = found["n"].astype(np.float64), found["mean"]
        std = np.sqrt(np.maximum(found["square"] - mean**2, 0.0))
        beyond = np.maximum(RARE, np.minimum(MOST_RARE, LEAST_RARE / n))
        # A bin may reach farther than its farthest token.
        low = np.clip(-_upper(counts[:, ::-1], beyond), found["low"], found["high"])
        high = np.clip(_upper(counts, beyond), found["low"], found["high"])
        columns = (found["n"], mean, std, beyond, low, high)
        return {
            str(name): Bulk(*values)
            for name, *values in zip(found["id"], *(c.tolist() for c in columns), strict=True)
        }

    def _content_histograms(self, n_directions: int) -> npt.NDArray[np.int64]:
        """Counts [n_directions, HISTOGRAM_BINS] of the tuned model over content roles."""
        counts = np.zeros((n_directions, HISTOGRAM_BINS), dtype=np.int64)
        batches = self._connection.sql(
            "SELECT direction, counts FROM histograms WHERE model = $model AND role < $roles",
            params={"model": MODELS.index("tuned"), "roles": len(CONTENT_ROLES)},
        ).to_arrow_reader(_BATCH)
        for batch in batches:
            at = batch.column("direction").to_numpy()
            own = batch.column("counts").flatten().to_numpy().reshape(-1, HISTOGRAM_BINS)
            np.add.at(counts, at[at < n_directions], own[at < n_directions])
        return counts

    def enriched_sources(self, below: float) -> list[SourceShare]:
        """Sources that hold more of a pole's tail than chance, their q-value below ``below``.

        Of the whole run, the least p-value first.
        """
        rows = self._connection.execute(
            "SELECT id, pole, source, n, tail, documents, all_documents, p_value, q_value "
            "FROM sources JOIN directions USING (direction) WHERE q_value < ? "
            "ORDER BY p_value, n DESC, direction, pole, source",
            [below],
        ).fetchall()
        return [SourceShare(row[0], POLES[row[1]], *row[2:]) for row in rows]

    def saturations(self) -> Iterator[Saturation]:
        """How every direction's extremes grew with the corpus, in scan order."""
        table = self._connection.sql(
            "SELECT id, pole, documents, extremes, gain FROM saturation "
            "JOIN directions USING (direction) ORDER BY direction, pole"
        ).to_arrow_table()
        columns = [table.column(name).to_pylist() for name in ("id", "pole", "gain")]
        lists = [arrays(table.column(name)) for name in ("documents", "extremes")]
        for name, pole, gain, documents, extremes in zip(*columns, *lists, strict=True):
            yield Saturation(
                name, POLES[pole], tuple(documents.tolist()), tuple(extremes.tolist()), gain
            )


def _upper(counts: npt.NDArray[np.int64], beyond: Floats) -> Floats:
    """The value that a share ``beyond`` of the counts lies above, by row; evenly within a bin."""
    totals = counts.sum(axis=1)
    wanted = (1 - beyond) * totals
    reached = np.cumsum(counts, axis=1)
    at = np.minimum((reached < wanted[:, None]).sum(axis=1), HISTOGRAM_BINS - 1)
    rows = np.arange(len(counts))
    held = counts[rows, at]
    missing = wanted - (reached[rows, at] - held)
    part = np.divide(missing, held, out=np.zeros(len(counts)), where=held > 0)
    values: Floats = (at + np.clip(part, 0.0, 1.0)) * (2 / HISTOGRAM_BINS) - 1
    return values
