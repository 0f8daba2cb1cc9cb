"""Which labels does a run hold? The one part of its database that is replaced later."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from builder.records import POLES, Label, LabelFailure
from builder.store.database import Database
from builder.store.schema import insert_rows

_FINGERPRINT = "label_fingerprint/"


class LabelTables(Database):
    """A run's database with its labels and failures to label."""

    def replace_labels(
        self, results: Iterable[Label | LabelFailure], *, fingerprint: str = ""
    ) -> None:
        """Puts these labels and failures in place of all that their labelers gave before.

        What other labelers gave stays. ``fingerprint`` names what the labels depend on, see
        :meth:`label_fingerprint`. One transaction.
        """
        index = dict(self._connection.execute("SELECT id, direction FROM directions").fetchall())
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
        with self.writing("labels"):
            for table, rows in (("labels", labels), ("label_failures", failures)):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE labeler IN (SELECT unnest(?))", [sorted(labelers)]
                )
                insert_rows(self._connection, table, sorted(rows, key=lambda row: row[:3]))
            self.put_meta({_FINGERPRINT + labeler: fingerprint for labeler in sorted(labelers)})

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
