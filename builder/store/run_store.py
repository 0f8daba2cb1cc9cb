"""What does a run hold? Every question the stages and the pages ask its database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from builder.records import (
    ANY_ROLE,
    MODELS,
    POLES,
    READERS,
    ROLES,
    WRITERS,
    Example,
    Histogram,
    Hookpoint,
    Pole,
    Range,
    Shift,
    Spectrum,
    Window,
)
from builder.store.rows import Count, DirectionRow, Saturation, SourceShare
from builder.store.score_tables import ScoreTables
from builder.store.windows import read_window

Quantized = npt.NDArray[np.int16]


class RunStore(ScoreTables):
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

    def examples(
        self, direction: str, *, pole: Pole | None = None, role: str | None = None
    ) -> list[Example]:
        """Examples of one direction, by pole, role and place; ``role="any"`` takes each document
        once, by its most extreme content role. Without ``role``: every role's own list.
        """
        where = ["id = ?"]
        values: list[Any] = [direction]
        if pole is not None:
            where.append("pole = ?")
            values.append(POLES.index(pole))
        place = "place"
        if role != ANY_ROLE:
            where.append("place IS NOT NULL")
        if role == ANY_ROLE:
            where.append("any_place IS NOT NULL")
            place = "any_place"
        elif role is not None:
            where.append("role = ?")
            values.append(ROLES.index(role))
        order = f"pole, {place}" if role == ANY_ROLE else f"pole, role, {place}"
        rows = self._connection.execute(
            f"SELECT role, pole, {place}, value, doc_id, source, start, peak, duplicates, "
            "repeats, text, token_lengths, roles, activations, base_activations "
            "FROM examples JOIN directions USING (direction) "
            f"WHERE {' AND '.join(where)} ORDER BY {order}",
            values,
        ).fetchall()
        return [
            Example(
                direction=direction,
                role=ROLES[row[0]],
                pole=POLES[row[1]],
                place=row[2],
                value=row[3],
                peak=row[7],
                duplicates=row[8],
                repeats=row[9],
                window=read_window(row[4], row[5], row[6], row[10], row[11]),
                roles=np.asarray(row[12], dtype=np.uint8),
                activations=np.asarray(row[13], dtype=np.int16),
                base_activations=_quantized(row[14]),
            )
            for row in rows
        ]

    def quantile_examples(self, direction: str) -> list[Example]:
        """Random documents at evenly spaced quantiles of how far they reach to each pole.

        By pole and place, from far off the pole towards it: of n at a pole, the one at place p
        reaches farther than a share (p + 0.5) / n of the reservoir. ``role`` is that of the peak.
        """
        rows = self._connection.execute(
            "SELECT pole, quantile_examples.place, value, peak, doc_id, source, start, duplicates, "
            "text, token_lengths, roles, activations, base_activations FROM quantile_examples "
            "JOIN directions USING (direction) "
            "JOIN reservoir ON reservoir.place = quantile_examples.sample "
            "WHERE id = ? ORDER BY pole, quantile_examples.place",
            [direction],
        ).fetchall()
        return [
            Example(
                direction=direction,
                role=ROLES[row[10][row[3]]],
                pole=POLES[row[0]],
                place=row[1],
                value=row[2],
                peak=row[3],
                duplicates=row[7],
                window=read_window(row[4], row[5], row[6], row[8], row[9]),
                roles=np.asarray(row[10], dtype=np.uint8),
                activations=np.asarray(row[11], dtype=np.int16),
                base_activations=_quantized(row[12]),
            )
            for row in rows
        ]

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

    def histograms(self, direction: str, model: str = "tuned") -> list[Histogram]:
        """One histogram per role that had tokens, of one of MODELS."""
        rows = self._connection.execute(
            "SELECT role, counts FROM histograms JOIN directions USING (direction) "
            "WHERE id = ? AND model = ? ORDER BY role",
            [direction, MODELS.index(model)],
        ).fetchall()
        return [
            Histogram(direction, ROLES[role], np.asarray(counts, dtype=np.int64))
            for role, counts in rows
        ]

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
        rows = self._connection.execute(
            "SELECT pole, source, n, tail, documents, all_documents, p_value, q_value "
            "FROM sources JOIN directions USING (direction) "
            "WHERE id = ? ORDER BY pole, n DESC, source",
            [direction],
        ).fetchall()
        return [SourceShare(direction, POLES[row[0]], *row[1:]) for row in rows]

    def saturation(self, direction: str) -> list[Saturation]:
        """How a direction's extremes grew with the corpus, one for each pole that has any."""
        rows = self._connection.execute(
            "SELECT pole, documents, extremes, gain FROM saturation "
            "JOIN directions USING (direction) WHERE id = ? ORDER BY pole",
            [direction],
        ).fetchall()
        return [
            Saturation(direction, POLES[pole], tuple(documents), tuple(extremes), gain)
            for pole, documents, extremes, gain in rows
        ]

    def reservoir(self) -> list[Window]:
        """Windows of random documents, the contrast for labels."""
        return self._samples("reservoir")

    def held_out(self) -> list[Window]:
        """Windows of further random documents, kept for the scores of labels alone."""
        return self._samples("held_out")

    def sample_peaks(
        self, directions: Sequence[str]
    ) -> dict[str, dict[Pole, tuple[Quantized, Quantized]]]:
        """How far the windows of :meth:`reservoir` and of :meth:`held_out` reach to each pole.

        int16, ACTIVATION_SCALE per unit, in the order of the windows; over their content tokens.
        Many directions at once take little longer than one.
        """
        rows = self._connection.execute(
            "SELECT id, highest, lowest, "
            "(SELECT count(*) FROM reservoir WHERE split = 'reservoir') "
            "FROM sample_peaks JOIN directions USING (direction) WHERE id IN (SELECT unnest(?))",
            [list(directions)],
        ).fetchall()
        none = np.zeros(0, dtype=np.int16)
        found: dict[str, dict[Pole, tuple[Quantized, Quantized]]] = {
            direction: dict.fromkeys(POLES, (none, none)) for direction in directions
        }
        for direction, highest, lowest, n in rows:
            for pole, values in zip(POLES, (highest, lowest), strict=True):
                peaks = np.asarray(values, dtype=np.int16)
                found[direction][pole] = peaks[:n], peaks[n:]
        return found

    def _samples(self, split: str) -> list[Window]:
        rows = self._connection.execute(
            "SELECT doc_id, source, start, text, token_lengths FROM reservoir WHERE split = ? "
            "ORDER BY place",
            [split],
        ).fetchall()
        return [read_window(*row) for row in rows]

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


def _quantized(values: Sequence[int] | None) -> Quantized | None:
    return None if values is None else np.asarray(values, dtype=np.int16)
