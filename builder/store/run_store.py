"""What does a run hold? Every question the stages and the pages ask its database."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np

from builder.errors import DiskFullError, StoreError, is_disk_full
from builder.records import (
    ANY_ROLE,
    POLES,
    READERS,
    ROLES,
    WRITERS,
    Example,
    Histogram,
    Hookpoint,
    Label,
    LabelFailure,
    Pole,
    Range,
    Spectrum,
    Window,
)
from builder.store.rows import Count, DirectionRow
from builder.store.schema import SCHEMA_VERSION, connect, insert_rows

_FINGERPRINT = "label_fingerprint/"


class RunStore:
    """A run's database, opened for reading unless asked; use as a context manager."""

    def __init__(self, path: Path, *, read_only: bool = True) -> None:
        """Opens ``path``; raises StoreError if it is missing, damaged, locked or of another age."""
        if not path.is_file():
            raise StoreError(f"{path}: no database here; run `weightatlas scan` first")
        try:
            self._connection = connect(path, read_only=read_only)
            version = self.meta().get("schema_version")
        except duckdb.Error as error:
            raise StoreError(f"{path}: cannot be opened: {error}") from error
        if version != SCHEMA_VERSION:
            self.close()
            raise StoreError(
                f"{path}: has schema {version}, this weightatlas reads {SCHEMA_VERSION}; "
                "delete it and run `weightatlas scan` again (finished shards are reused)"
            )
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def meta(self) -> dict[str, Any]:
        """What the run is made of: models, settings, fingerprints, facts; JSON values by key."""
        rows = self._connection.execute("SELECT key, value FROM meta ORDER BY key").fetchall()
        return {key: json.loads(value) for key, value in rows}

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
        if role == ANY_ROLE:
            where.append("any_place IS NOT NULL")
            place = "any_place"
        elif role is not None:
            where.append("role = ?")
            values.append(ROLES.index(role))
        order = f"pole, {place}" if role == ANY_ROLE else f"pole, role, {place}"
        rows = self._connection.execute(
            f"SELECT role, pole, {place}, value, doc_id, source, start, peak, duplicates, text, "
            "token_ends, activations, roles FROM examples JOIN directions USING (direction) "
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
                window=_window(row[4], row[5], row[6], row[9], row[10]),
                activations=np.asarray(row[11], dtype=np.int16),
                roles=np.asarray(row[12], dtype=np.uint8),
            )
            for row in rows
        ]

    def example_sources(self) -> Iterator[tuple[str, Pole, str, list[str]]]:
        """(direction, pole, role, sources of its examples by place) for every list kept.

        Roles are those of the run and ``any``. One query, for statistics over the whole run.
        """
        rows = self._connection.execute(
            "SELECT id, pole, role, list(source ORDER BY place) FROM examples "
            "JOIN directions USING (direction) GROUP BY id, direction, pole, role "
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

    def histograms(self, direction: str) -> list[Histogram]:
        """One histogram per role that had tokens."""
        rows = self._connection.execute(
            "SELECT role, counts FROM histograms JOIN directions USING (direction) "
            "WHERE id = ? ORDER BY role",
            [direction],
        ).fetchall()
        return [
            Histogram(direction, ROLES[role], np.asarray(counts, dtype=np.int64))
            for role, counts in rows
        ]

    def ranges(self) -> list[Range]:
        """Extent of every direction over every role that had tokens, in scan order."""
        rows = self._connection.execute(
            "SELECT id, role, n, minimum, maximum, mean, std FROM ranges "
            "JOIN directions USING (direction) ORDER BY direction, role"
        ).fetchall()
        return [Range(row[0], ROLES[row[1]], *row[2:]) for row in rows]

    def reservoir(self) -> list[Window]:
        """Windows of random documents, the contrast for labels."""
        rows = self._connection.execute(
            "SELECT doc_id, source, start, text, token_ends FROM reservoir ORDER BY place"
        ).fetchall()
        return [_window(*row) for row in rows]

    def counts(self) -> list[Count]:
        """Documents, tokens, exclusions and dropped rows; see COUNTS_SCHEMA."""
        rows = self._connection.execute(
            "SELECT what, name, layer, n FROM counts ORDER BY what, name, layer"
        ).fetchall()
        return [Count(*row) for row in rows]

    def replace_labels(
        self, results: Iterable[Label | LabelFailure], *, fingerprint: str = ""
    ) -> None:
        """Puts these labels and failures in place of all that their labelers gave before.

        What other labelers gave stays. ``fingerprint`` names what the labels depend on, see
        :meth:`label_fingerprint`. One transaction.
        """
        index = {row.id: row.index for row in self.directions()}
        labels: list[tuple[Any, ...]] = []
        failures: list[tuple[Any, ...]] = []
        labelers: set[str] = set()
        for result in results:
            labelers.add(result.labeler)
            key = (index[result.direction], POLES.index(result.pole), result.labeler)
            usage = (result.prompt_tokens, result.completion_tokens)
            if isinstance(result, Label):
                named = (*key, result.text, result.explanation, list(result.keywords))
                judged = (result.kind, result.confidence, result.prompt_hash)
                labels.append((*named, *judged, list(result.example_docs), *usage))
            else:
                failures.append((*key, result.reason, result.detail, result.prompt_hash, *usage))
        with self._writing("labels"):
            for table, rows in (("labels", labels), ("label_failures", failures)):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE labeler IN (SELECT unnest(?))", [sorted(labelers)]
                )
                insert_rows(self._connection, table, sorted(rows, key=lambda row: row[:3]))
            self._put_meta({_FINGERPRINT + labeler: fingerprint for labeler in sorted(labelers)})

    def update_meta(self, values: Mapping[str, Any]) -> None:
        """Sets some of the run's facts, in one transaction."""
        with self._writing("facts"):
            self._put_meta(values)

    def _put_meta(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            self._connection.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, json.dumps(value)]
            )

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """One transaction, and clear errors if it fails."""
        try:
            self._connection.execute("BEGIN")
            yield
            self._connection.execute("COMMIT")
            self._connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            if is_disk_full(error):
                raise DiskFullError(f"{self.path}: no space left for the {what}") from error
            raise StoreError(f"{self.path}: {what} could not be written: {error}") from error

    def label_fingerprint(self, labeler: str) -> str | None:
        """What the labels of a labeler depend on; None if it has given none."""
        found = self._connection.execute(
            "SELECT value FROM meta WHERE key = ?", [_FINGERPRINT + labeler]
        ).fetchone()
        return str(json.loads(found[0])) if found else None

    def labels(self) -> list[Label]:
        """Every label, by direction, pole and labeler."""
        rows = self._connection.execute(
            "SELECT id, pole, labeler, text, explanation, keywords, labels.kind, confidence, "
            "prompt_hash, example_docs, prompt_tokens, completion_tokens FROM labels "
            "JOIN directions USING (direction) ORDER BY direction, pole, labeler"
        ).fetchall()
        return [
            Label(
                direction=row[0],
                pole=POLES[row[1]],
                labeler=row[2],
                text=row[3],
                explanation=row[4],
                keywords=tuple(row[5]),
                kind=row[6],
                confidence=row[7],
                prompt_hash=row[8],
                example_docs=tuple(row[9]),
                prompt_tokens=row[10],
                completion_tokens=row[11],
            )
            for row in rows
        ]

    def label_failures(self) -> list[LabelFailure]:
        """Every pole that could not be labelled, and why."""
        rows = self._connection.execute(
            "SELECT id, pole, labeler, reason, detail, prompt_hash, prompt_tokens, "
            "completion_tokens FROM label_failures JOIN directions USING (direction) "
            "ORDER BY direction, pole, labeler"
        ).fetchall()
        return [LabelFailure(row[0], POLES[row[1]], *row[2:]) for row in rows]

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every table as sorted rows, to compare two databases value by value."""
        tables = self._connection.execute(
            "SELECT table_name FROM information_schema.tables ORDER BY table_name"
        ).fetchall()
        return {
            name: self._connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
            for (name,) in tables
        }


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _place(matrix: str) -> tuple[int, str]:
    """Where a matrix stands among those of its layer; unknown ones come last, by name."""
    known = (*WRITERS, *READERS)
    return (known.index(matrix) if matrix in known else len(known), matrix)


def _window(doc_id: int, source: str, start: int, text: str, token_ends: Sequence[int]) -> Window:
    return Window(doc_id, source, start, text, np.asarray(token_ends, dtype=np.uint32))
