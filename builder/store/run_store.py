"""What does a run hold? Every question the stages and the pages ask its database."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from builder.records import (
    MODELS,
    POLES,
    READERS,
    ROLES,
    WRITERS,
    Histogram,
    Hookpoint,
    Range,
    Shift,
    Spectrum,
)
from builder.store.example_tables import ExampleTables, arrays
from builder.store.overview_tables import OverviewTables
from builder.store.peak_tables import PeakTables
from builder.store.rows import Count, DirectionRow, Saturation, SourceShare
from builder.store.score_tables import ScoreTables

#: Tables that are read direction by direction.
_HASHED = (
    "examples", "histograms", "sources", "saturation", "quantile_examples", "scores",
)  # fmt: skip


class RunStore(ExampleTables, OverviewTables, PeakTables, ScoreTables):
    """A run's database, opened for reading unless asked; use as a context manager."""

    def directions(self) -> list[DirectionRow]:
        """All directions in scan order."""
        rows = self._connection.execute("SELECT * FROM directions ORDER BY direction").fetchall()
        return [
            DirectionRow(
                index=row[0],
                id=row[1],
                content_hash=row[2],
                hookpoint=Hookpoint(row[3], row[4], row[5]),
                rank=row[6],
                kind=row[7],
                sigma=row[8],
                energy=row[9],
                residual=row[10],
                promoted=tuple((item["token"], item["logit"]) for item in row[11]),
                suppressed=tuple((item["token"], item["logit"]) for item in row[12]),
                gap=row[13],
                group=tuple(row[14]),
                reads=tuple((item["source"], item["share"]) for item in row[15]),
                neighbours=tuple((item["id"], item["cosine"]) for item in row[16]),
            )
            for row in rows
        ]

    def spectra(self) -> list[Spectrum]:
        """Singular values of every matrix: by layer, what writes before what reads."""
        rows = self._connection.execute("SELECT * FROM spectra").fetchall()
        found = [
            Spectrum(
                hookpoint=Hookpoint(row[0], row[1], row[2]),
                shape=(row[3], row[4]),
                side=row[5],
                space=row[6],
                frobenius=row[7],
                stable_rank=_number(row[8]),
                sigmas=np.asarray(row[9], dtype=np.float32),
                is_full=row[10],
                entropy=_number(row[11]),
                concentration=_number(row[12]),
                effective_rank=_number(row[13]),
                shuffled_floor=_number(row[14]),
                rounding_floor=_number(row[15]),
            )
            for row in rows
        ]
        return sorted(found, key=lambda item: (item.hookpoint.layer, _place(item.hookpoint.writer)))

    def histograms(self, direction: str, model: str = "tuned") -> list[Histogram]:
        """One histogram per role that had tokens, of one of MODELS."""
        return self.histograms_of([direction], model)[direction]

    def histograms_of(
        self, directions: Sequence[str], model: str = "tuned"
    ) -> dict[str, list[Histogram]]:
        """What :meth:`histograms` gives each of these directions."""
        table = self._connection.sql(
            "SELECT id, role, counts FROM histograms JOIN directions USING (direction) "
            "WHERE id IN (SELECT unnest(?)) AND model = ? ORDER BY direction, role",
            params=[list(directions), MODELS.index(model)],
        ).to_arrow_table()
        found: dict[str, list[Histogram]] = {direction: [] for direction in directions}
        columns = [table.column(name).to_pylist() for name in ("id", "role")]
        for direction, role, counts in zip(*columns, arrays(table.column("counts")), strict=True):
            found[direction].append(Histogram(direction, ROLES[role], counts))
        return found

    def ranges(self, model: str = "tuned") -> list[Range]:
        """Extent of every direction over every role that had tokens, in scan order, of one of
        MODELS; empty for base and difference where the base was not scanned.
        """
        rows = self._connection.execute(
            "SELECT id, role, n, minimum, maximum, mean, std FROM ranges "
            "JOIN directions USING (direction) WHERE model = ? ORDER BY direction, role",
            [MODELS.index(model)],
        ).fetchall()
        return [Range(row[0], ROLES[row[1]], *row[2:]) for row in rows]

    def shifts(self) -> list[Shift]:
        """How far tuning moved every direction's activations by role; empty without the base."""
        rows = self._connection.execute(
            "SELECT id, role, n, mean, std, outside FROM shifts "
            "JOIN directions USING (direction) ORDER BY direction, role"
        ).fetchall()
        return [Shift(row[0], ROLES[row[1]], *row[2:]) for row in rows]

    def sources(self, direction: str) -> list[SourceShare]:
        """The sources of both poles' most extreme documents, the commonest first."""
        return self.sources_of([direction])[direction]

    def sources_of(self, directions: Sequence[str]) -> dict[str, list[SourceShare]]:
        """What :meth:`sources` gives each of these directions."""
        rows = self._connection.execute(
            "SELECT id, pole, source, n, tail, documents, all_documents, p_value, q_value "
            "FROM sources JOIN directions USING (direction) "
            "WHERE id IN (SELECT unnest(?)) ORDER BY pole, n DESC, source",
            [list(directions)],
        ).fetchall()
        found: dict[str, list[SourceShare]] = {direction: [] for direction in directions}
        for direction, pole, *values in rows:
            found[direction].append(SourceShare(direction, POLES[pole], *values))
        return found

    def saturation(self, direction: str) -> list[Saturation]:
        """How a direction's extremes grew with the corpus, one for each pole that has any."""
        return self.saturation_of([direction])[direction]

    def saturation_of(self, directions: Sequence[str]) -> dict[str, list[Saturation]]:
        """What :meth:`saturation` gives each of these directions."""
        rows = self._connection.execute(
            "SELECT id, pole, documents, extremes, gain FROM saturation "
            "JOIN directions USING (direction) WHERE id IN (SELECT unnest(?)) ORDER BY pole",
            [list(directions)],
        ).fetchall()
        found: dict[str, list[Saturation]] = {direction: [] for direction in directions}
        for direction, pole, documents, extremes, gain in rows:
            found[direction].append(
                Saturation(direction, POLES[pole], tuple(documents), tuple(extremes), gain)
            )
        return found

    def digests(self) -> dict[str, tuple[int, ...]]:
        """By direction, hashes of its rows in the tables of examples, statistics and scores.

        They change when any value does, and need not be the same in another version of DuckDB.
        """
        found: dict[str, tuple[int, ...]] = {}
        names = dict(self._connection.execute("SELECT direction, id FROM directions").fetchall())
        for table in _HASHED:
            columns = self._connection.sql(f"SELECT * FROM {table} LIMIT 0").columns
            fields = ", ".join(f'"{name}"' for name in columns)
            rows = self._connection.execute(
                f"SELECT direction, bit_xor(hash(hash({fields}))) FROM {table} GROUP BY direction"
            ).fetchall()
            held = dict(rows)
            for direction, name in names.items():
                found[name] = (*found.get(name, ()), held.get(direction, 0))
        return found

    def reservoir_digest(self) -> int:
        """A hash of the random documents."""
        rows = self._connection.execute(
            "SELECT bit_xor(hash(hash(place, split, doc_id, source, start, duplicates, text, "
            "token_lengths, roles))) FROM reservoir"
        ).fetchall()
        return int(rows[0][0] or 0)

    def counts(self) -> list[Count]:
        """Documents, tokens, exclusions and dropped rows; see COUNTS_SCHEMA."""
        rows = self._connection.execute(
            "SELECT what, name, layer, n FROM counts ORDER BY what, name, layer"
        ).fetchall()
        return [Count(*row) for row in rows]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _place(matrix: str) -> tuple[int, str]:
    """Where a matrix stands among those of its layer; unknown ones come last, by name."""
    known = (*WRITERS, *READERS)
    return (known.index(matrix) if matrix in known else len(known), matrix)
