"""Which labels does a run hold? Replaced labeler by labeler, after the scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from builder.records import POLES, Label, LabelFailure, Similar, Spend
from builder.store.database import Database
from builder.store.masks import masked_values
from builder.store.schema import insert_records

_FINGERPRINT = "label_fingerprint/"

_LABEL_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(Label)
    if field.name not in ("direction", "pole", "labeler")
)
_FAILURE_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(LabelFailure)
    if field.name not in ("direction", "pole", "labeler")
)


class LabelTables(Database):
    """A run's database with its labels, failures to label, similar labels and what all cost."""

    def replace_labels(
        self, results: Iterable[Label | LabelFailure], *, fingerprint: str = ""
    ) -> None:
        """Puts these labels and failures in place of all that their labelers gave before.

        What other labelers gave stays. ``fingerprint`` names what the labels depend on, see
        :meth:`label_fingerprint`. One transaction.
        """
        index = self.direction_index()
        labels: list[dict[str, Any]] = []
        failures: list[dict[str, Any]] = []
        labelers: set[str] = set()
        for result in results:
            labelers.add(result.labeler)
            is_label = isinstance(result, Label)
            names = _LABEL_FIELDS if is_label else _FAILURE_FIELDS
            row = {name: getattr(result, name) for name in names}
            row["direction"] = index[result.direction]
            row["pole"] = POLES.index(result.pole)
            row["labeler"] = result.labeler
            (labels if is_label else failures).append(row)
        with self.writing("labels"):
            for table, rows in (("labels", labels), ("label_failures", failures)):
                self.remove_labelers(table, labelers)
                rows.sort(key=lambda row: (row["direction"], row["pole"], row["candidate"]))
                insert_records(self._connection, table, rows)
            self.put_meta({_FINGERPRINT + labeler: fingerprint for labeler in sorted(labelers)})

    def forget_labels(self, labeler: str, *, fingerprint: str = "") -> None:
        """Takes away all that a labeler gave; ``fingerprint`` as for :meth:`replace_labels`."""
        with self.writing("labels"):
            for table in ("labels", "label_failures"):
                self.remove_labelers(table, [labeler])
            self.put_meta({_FINGERPRINT + labeler: fingerprint})

    def remove_labelers(self, table: str, labelers: Iterable[str]) -> None:
        """Deletes what these labelers have in a table, inside :meth:`writing`."""
        self._connection.execute(
            f"DELETE FROM {table} WHERE labeler IN (SELECT unnest(?))", [sorted(labelers)]
        )

    def direction_index(self) -> dict[str, int]:
        """The number of every direction by its id."""
        return dict(self._connection.execute("SELECT id, direction FROM directions").fetchall())

    def label_fingerprint(self, labeler: str) -> str | None:
        """What the labels of a labeler depend on; None if it has given none."""
        found = self.fact(_FINGERPRINT + labeler)
        return None if found is None else str(found)

    def labels(self, *, candidates: bool = False) -> list[Label]:
        """Every chosen label, by direction, pole and labeler; with ``candidates`` all of them."""
        fields = ", ".join(f"labels.{name}" for name in _LABEL_FIELDS)
        rows = self._connection.execute(
            f"SELECT id, pole, labeler, {fields} FROM labels JOIN directions USING (direction) "
            f"{'' if candidates else 'WHERE is_chosen'} "
            "ORDER BY direction, pole, labeler, candidate"
        ).fetchall()
        found = []
        for direction, pole, labeler, *values in rows:
            named = dict(zip(_LABEL_FIELDS, values, strict=True))
            masked_values(self._mask, named, "labels")
            named["keywords"] = tuple(named["keywords"])
            named["example_docs"] = tuple(named["example_docs"])
            found.append(Label(direction=direction, pole=POLES[pole], labeler=labeler, **named))
        return found

    def label_failures(self) -> list[LabelFailure]:
        """Every candidate that failed, and why; those of poles that have a label among them."""
        fields = ", ".join(f"label_failures.{name}" for name in _FAILURE_FIELDS)
        rows = self._connection.execute(
            f"SELECT id, pole, labeler, {fields} FROM label_failures "
            "JOIN directions USING (direction) ORDER BY direction, pole, labeler, candidate"
        ).fetchall()
        return [
            LabelFailure(
                direction,
                POLES[pole],
                labeler,
                **masked_values(
                    self._mask, dict(zip(_FAILURE_FIELDS, values, strict=True)), "label_failures"
                ),
            )
            for direction, pole, labeler, *values in rows
        ]

    def replace_similar(self, found: Iterable[Similar]) -> None:
        """Puts these similar labels in place of all before; nearest first at each pole."""
        index = self.direction_index()
        rows: list[dict[str, Any]] = []
        places: dict[tuple[str, str], int] = {}
        for item in found:
            key = (item.direction, item.pole)
            places[key] = place = places.get(key, -1) + 1
            rows.append(
                {
                    "direction": index[item.direction],
                    "pole": POLES.index(item.pole),
                    "place": place,
                    "other": index[item.other],
                    "other_pole": POLES.index(item.other_pole),
                    "similarity": item.similarity,
                    "measure": item.by,
                }
            )
        with self.writing("similar labels"):
            self._connection.execute("DELETE FROM similar_labels")
            insert_records(self._connection, "similar_labels", rows)

    def similar(self, direction: str) -> list[Similar]:
        """Poles whose labels say much the same as those of a direction, by pole, nearest first."""
        return self.similar_of([direction])[direction]

    def similar_of(self, directions: Sequence[str]) -> dict[str, list[Similar]]:
        """What :meth:`similar` gives each of these directions."""
        rows = self._connection.execute(
            "SELECT directions.id, pole, others.id, other_pole, similarity, measure "
            "FROM similar_labels JOIN directions USING (direction) "
            "JOIN directions AS others ON others.direction = similar_labels.other "
            "WHERE directions.id IN (SELECT unnest(?)) ORDER BY pole, place",
            [list(directions)],
        ).fetchall()
        found: dict[str, list[Similar]] = {direction: [] for direction in directions}
        for direction, pole, other, other_pole, similarity, by in rows:
            found[direction].append(
                Similar(direction, POLES[pole], other, POLES[other_pole], similarity, by)
            )
        return found

    def replace_spend(self, stage: str, found: Iterable[Spend]) -> None:
        """Puts what a stage has cost so far in place of what was known before."""
        with self.writing("spend"):
            self._connection.execute("DELETE FROM spend WHERE stage = ?", [stage])
            insert_records(self._connection, "spend", [dataclasses.asdict(item) for item in found])

    def spend(self) -> list[Spend]:
        """What each stage asked of each model, and what that cost."""
        fields = ", ".join(field.name for field in dataclasses.fields(Spend))
        rows = self._connection.execute(
            f"SELECT {fields} FROM spend ORDER BY stage, model"
        ).fetchall()
        return [Spend(*row) for row in rows]
