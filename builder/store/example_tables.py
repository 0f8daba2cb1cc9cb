"""Which texts does a run hold, and how far do they reach? Examples and random documents.

Lists of numbers come out of the database as arrays, many directions at once: one query for each
direction would look through the whole table each time, and take longer than a model's answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.records import ANY_ROLE, POLES, ROLES, Example, Pole, Window
from builder.store.database import Database
from builder.store.rows import ListedExample

Quantized = npt.NDArray[np.int16]
#: Directions to read at once; more gain little, and each takes some 60 kB.
AT_ONCE = 64
_TEXTS_AT_ONCE = 10_000


class ExampleTables(Database):
    """A run's database with its examples and random documents."""

    def examples(
        self, direction: str, *, pole: Pole | None = None, role: str | None = None
    ) -> list[Example]:
        """Examples of one direction, by pole, role and place; ``role="any"`` takes each document
        once, by its most extreme content role. Without ``role``: every role's own list.
        """
        return self.examples_of([direction], pole=pole, role=role)[direction]

    def examples_of(
        self, directions: Sequence[str], *, pole: Pole | None = None, role: str | None = None
    ) -> dict[str, list[Example]]:
        """What :meth:`examples` gives each of these directions; AT_ONCE are a good number."""
        place = "any_place" if role == ANY_ROLE else "place"
        where = [f"{place} IS NOT NULL"]
        values: list[Any] = [list(directions)]
        if pole is not None:
            where.append("pole = ?")
            values.append(POLES.index(pole))
        if role is not None and role != ANY_ROLE:
            where.append("role = ?")
            values.append(ROLES.index(role))
        table = self._connection.sql(
            f"SELECT id, role, pole, {place} AS place, value, doc_id, source, start, peak, "
            "duplicates, repeats, text, token_lengths, roles, activations, base_activations "
            "FROM examples JOIN directions USING (direction) "
            f"WHERE id IN (SELECT unnest(?)) AND {' AND '.join(where)} "
            f"ORDER BY direction, pole, {'' if role == ANY_ROLE else 'role, '}{place}",
            params=values,
        ).to_arrow_table()
        return self._by_direction(directions, table)

    def listed_examples_of(
        self, directions: Sequence[str], within: int
    ) -> dict[str, list[ListedExample]]:
        """The joint list of each of these directions, and the first ``within`` of every role's.

        An example of both comes once; by pole, and in the order of both places.
        """
        table = self._connection.sql(
            "SELECT id, role, pole, coalesce(any_place, place) AS place, value, doc_id, source, "
            "start, peak, duplicates, repeats, text, token_lengths, roles, activations, "
            "base_activations, examples.place AS role_place, any_place "
            "FROM examples JOIN directions USING (direction) "
            "WHERE id IN (SELECT unnest(?)) AND (any_place IS NOT NULL OR examples.place < ?) "
            "ORDER BY direction, pole, any_place, role, examples.place",
            params=[list(directions), within],
        ).to_arrow_table()
        found: dict[str, list[ListedExample]] = {direction: [] for direction in directions}
        places = [table.column(name).to_pylist() for name in ("role_place", "any_place")]
        for example, place, any_place in zip(self._examples(table), *places, strict=True):
            found[example.direction].append(ListedExample(example, place, any_place))
        return found

    def quantile_examples(self, direction: str) -> list[Example]:
        """Random documents at evenly spaced quantiles of how far they reach to each pole.

        By pole and place, from far off the pole towards it: of n at a pole, the one at place p
        reaches farther than a share (p + 0.5) / n of the reservoir. ``role`` is that of the peak.
        """
        return self.quantile_examples_of([direction])[direction]

    def quantile_examples_of(self, directions: Sequence[str]) -> dict[str, list[Example]]:
        """What :meth:`quantile_examples` gives each of these directions."""
        table = self._connection.sql(
            "SELECT id, roles[peak + 1] AS role, pole, quantile_examples.place AS place, value, "
            "doc_id, source, start, peak, duplicates, 0 AS repeats, text, token_lengths, roles, "
            "activations, base_activations FROM quantile_examples "
            "JOIN directions USING (direction) "
            "JOIN reservoir ON reservoir.place = quantile_examples.sample "
            "WHERE id IN (SELECT unnest(?)) ORDER BY direction, pole, quantile_examples.place",
            params=[list(directions)],
        ).to_arrow_table()
        return self._by_direction(directions, table)

    def example_sources(self) -> Iterator[tuple[str, Pole, str, list[str]]]:
        """(direction, pole, role, sources of its examples by place) for every list kept.

        Roles are those of the run and ``any``. One query, for statistics over the whole run.
        """
        rows = self._connection.execute(
            "SELECT id, pole, role, list(source ORDER BY place) FROM examples "
            "JOIN directions USING (direction) WHERE place IS NOT NULL "
            "GROUP BY id, direction, pole, role "
            "UNION ALL SELECT id, pole, 255, list(source ORDER BY any_place) FROM examples "
            "JOIN directions USING (direction) WHERE any_place IS NOT NULL "
            "GROUP BY id, direction, pole ORDER BY 1, 2, 3"
        ).fetchall()
        for direction, pole, role, sources in rows:
            yield (
                direction,
                POLES[pole],
                ANY_ROLE if role == 255 else ROLES[role],
                sources,
            )

    def reservoir(self) -> list[Window]:
        """Windows of random documents, the contrast for labels."""
        return self._samples("reservoir")

    def held_out(self) -> list[Window]:
        """Windows of further random documents, kept for the scores of labels alone."""
        return self._samples("held_out")

    def every_text(self) -> Iterator[str]:
        """Each distinct text of examples and random documents once, as it was scanned."""
        yield from self._texts("SELECT text FROM examples UNION SELECT text FROM reservoir")

    def every_remark(self) -> Iterator[str]:
        """Each distinct text that a labeler wrote: labels, keywords, reasons, what failed."""
        yield from self._texts(
            "SELECT text FROM labels UNION SELECT explanation FROM labels "
            "UNION SELECT unnest(keywords) FROM labels UNION SELECT detail FROM label_failures "
            "UNION SELECT text FROM scores"
        )

    def _texts(self, query: str) -> Iterator[str]:
        # On a cursor of its own, for others may ask the store while this one is read.
        with self._connection.cursor() as cursor:
            rows = cursor.execute(f"SELECT t FROM ({query}) AS _(t) WHERE t IS NOT NULL")
            while found := rows.fetchmany(_TEXTS_AT_ONCE):
                for (text,) in found:
                    yield text

    def near_duplicates(self) -> dict[int, frozenset[int]]:
        """Of documents that the run shows and that are near-duplicates: each with all its likes.

        It is among its own; what resembles no other document that is shown is left out.
        """
        rows = self._connection.execute(
            "SELECT list(doc_id) FROM near_duplicates GROUP BY lowest ORDER BY lowest"
        ).fetchall()
        return {doc_id: frozenset(alike) for (alike,) in rows for doc_id in alike}

    def sample_peaks(
        self, directions: Sequence[str]
    ) -> dict[str, dict[Pole, tuple[Quantized, Quantized]]]:
        """How far the windows of :meth:`reservoir` and of :meth:`held_out` reach to each pole.

        int16, ACTIVATION_SCALE per unit, in the order of the windows; over their content tokens.
        Many directions at once take little longer than one.
        """
        table = self._connection.sql(
            "SELECT id, highest, lowest, "
            "(SELECT count(*) FROM reservoir WHERE split = 'reservoir') AS n "
            "FROM sample_peaks JOIN directions USING (direction) WHERE id IN (SELECT unnest(?))",
            params=[list(directions)],
        ).to_arrow_table()
        none = np.zeros(0, dtype=np.int16)
        found: dict[str, dict[Pole, tuple[Quantized, Quantized]]] = {
            direction: dict.fromkeys(POLES, (none, none)) for direction in directions
        }
        columns = [table.column(name).to_pylist() for name in ("id", "n")]
        peaks = [arrays(table.column(name)) for name in ("highest", "lowest")]
        for direction, n, *both in zip(*columns, *peaks, strict=True):
            for pole, values in zip(POLES, both, strict=True):
                found[direction][pole] = values[:n], values[n:]
        return found

    def _samples(self, split: str) -> list[Window]:
        table = self._connection.sql(
            "SELECT doc_id, source, start, text, token_lengths FROM reservoir WHERE split = ? "
            "ORDER BY place",
            params=[split],
        ).to_arrow_table()
        return self._windows(table)

    def _by_direction(self, directions: Sequence[str], table: pa.Table) -> dict[str, list[Example]]:
        """The examples in the rows of a table, for each direction in the order of the rows."""
        found: dict[str, list[Example]] = {direction: [] for direction in directions}
        for example in self._examples(table):
            found[example.direction].append(example)
        return found

    def _examples(self, table: pa.Table) -> Iterator[Example]:
        """The examples in the rows of a table."""
        plain = ("id", "role", "pole", "place", "value", "peak", "duplicates", "repeats")
        columns = [table.column(name).to_pylist() for name in plain]
        lists = [
            arrays(table.column(name)) for name in ("roles", "activations", "base_activations")
        ]
        for row in zip(*columns, self._windows(table), *lists, strict=True):
            direction, role, pole, place, value, peak, duplicates, repeats, window = row[:9]
            roles, activations, base = row[9:]
            yield Example(
                direction=direction,
                role=ROLES[role],
                pole=POLES[pole],
                place=place,
                value=value,
                peak=peak,
                duplicates=duplicates,
                repeats=repeats,
                window=window,
                roles=roles,
                activations=activations,
                base_activations=base,
            )

    def _windows(self, table: pa.Table) -> list[Window]:
        columns = [table.column(name).to_pylist() for name in ("doc_id", "source", "start", "text")]
        if self._mask is not None:
            columns[3] = list(map(self._mask, columns[3]))
        lengths = arrays(table.column("token_lengths"))
        return [
            Window(doc_id, source, start, text, np.cumsum(each, dtype=np.uint32))
            for doc_id, source, start, text, each in zip(*columns, lengths, strict=True)
        ]


def arrays(column: pa.ChunkedArray) -> list[Any]:
    """The lists of a column, each an array of its own with its type; None for NULL."""
    found: list[Any] = []
    for chunk in column.chunks:
        values = chunk.values.to_numpy()
        ends = chunk.offsets.to_numpy().tolist()
        known = chunk.is_valid().to_pylist()
        # A copy, so that one list does not hold all the others in memory.
        found += [
            values[first:last].copy() if is_known else None
            for first, last, is_known in zip(ends, ends[1:], known, strict=False)
        ]
    return found
