"""How well do a run's labels do? Scores, with every text that was judged."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from builder.records import POLES, STRATA, Judged, Pole, Score
from builder.store.label_tables import LabelTables
from builder.store.masks import masked_values
from builder.store.schema import insert_records

_FINGERPRINT = "score_fingerprint/"
#: Columns that hold a field as it is; the others are converted below.
_PLAIN = tuple(
    field.name
    for field in dataclasses.fields(Score)
    if field.name
    not in ("direction", "pole", "between", "judged", "faults", "f1_interval", "auprc_interval",
            "chance")
)  # fmt: skip
_PAIRS = ("f1_interval", "auprc_interval", "chance")
#: Scores inserted at once; each holds some fifty judged texts.
_AT_ONCE = 1000


class ScoreTables(LabelTables):
    """A run's database with the scores of its labels."""

    def replace_scores(
        self, labeler: str, scores: Iterable[Score], *, fingerprint: str = ""
    ) -> None:
        """Puts these scores of a labeler's labels in place of all before; one transaction."""
        index = self.direction_index()
        with self.writing("scores"):
            self.remove_labelers("scores", [labeler])
            rows: list[dict[str, Any]] = []
            for score in scores:
                rows.append(_row(score, index))
                if len(rows) == _AT_ONCE:
                    insert_records(self._connection, "scores", rows)
                    rows = []
            insert_records(self._connection, "scores", rows)
            self.put_meta({_FINGERPRINT + labeler: fingerprint})

    def score_fingerprint(self, labeler: str) -> str | None:
        """What the scores of a labeler depend on; None if there are none."""
        found = self.fact(_FINGERPRINT + labeler)
        return None if found is None else str(found)

    def scores(
        self, direction: str | None = None, *, judged: bool = False, candidates: bool = False
    ) -> list[Score]:
        """Scores of one direction or of all, by direction, pole, labeler and scorer.

        Those on test texts; with ``candidates`` also those that decided between candidates.
        ``judged`` adds the texts, which are most of what there is to read.
        """
        where: list[str] = ["TRUE"]
        values: list[Any] = []
        if direction is not None:
            where.append("id = ?")
            values.append(direction)
        if not candidates:
            where.append("split = 'test'")
        return list(self._scores(" AND ".join(where), values, judged=judged))

    def judged_scores_of(self, directions: Sequence[str]) -> dict[str, list[Score]]:
        """All scores of each of these directions, with the texts, and those of candidates."""
        found: dict[str, list[Score]] = {direction: [] for direction in directions}
        where, values = "id IN (SELECT unnest(?))", [list(directions)]
        for score in self._scores(where, values, judged=True):
            found[score.direction].append(score)
        return found

    def _scores(self, where: str, values: list[Any], *, judged: bool) -> Iterator[Score]:
        table = self._connection.sql(
            f"SELECT id, pole, {', '.join('scores.' + name for name in _PLAIN)}, "
            f"{', '.join(_PAIRS)}, between_share, faults{', judged' if judged else ''} "
            f"FROM scores JOIN directions USING (direction) WHERE {where} "
            "ORDER BY direction, pole, labeler, scorer, split DESC, candidate",
            params=values,
        ).to_arrow_table()
        columns = ("id", "pole", *_PAIRS, "between_share", "faults", *_PLAIN)
        texts: Iterable[tuple[Judged, ...]] = itertools.repeat(())
        if judged:
            texts = _texts(table.column("judged"))
        lists = (table.column(name).to_pylist() for name in columns)
        for texts_of, direction, pole, f1, auprc, chance, between, faults, *plain in zip(
            texts, *lists, strict=judged
        ):
            yield Score(
                direction=direction,
                pole=POLES[pole],
                f1_interval=_pair(f1),
                auprc_interval=_pair(auprc),
                chance=_pair(chance),
                between=between,
                faults=dict(faults),
                judged=texts_of,
                **masked_values(self._mask, dict(zip(_PLAIN, plain, strict=True)), "scores"),
            )

    def example_docs(self) -> dict[tuple[str, Pole], dict[str, set[int]]]:
        """Per pole and labeler, the documents that its labels (all candidates) were made from."""
        rows = self._connection.execute(
            "SELECT id, pole, labeler, flatten(list(example_docs)) FROM labels "
            "JOIN directions USING (direction) GROUP BY ALL"
        ).fetchall()
        found: dict[tuple[str, Pole], dict[str, set[int]]] = {}
        for direction, pole, labeler, docs in rows:
            found.setdefault((direction, POLES[pole]), {})[labeler] = set(docs)
        return found


def _row(score: Score, index: dict[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(score, name) for name in _PLAIN}
    row["direction"] = index[score.direction]
    row["pole"] = POLES.index(score.pole)
    for name in _PAIRS:
        pair = getattr(score, name)
        row[name] = None if pair is None else list(pair)
    row["between_share"] = score.between
    row["faults"] = sorted(score.faults.items())
    row["judged"] = [
        {
            "stratum": STRATA.index(item.stratum),
            "place": item.place,
            "doc_id": item.doc_id,
            "truth": item.truth,
            "verdict": item.verdict,
            "weight": item.weight,
            "first": item.first,
            "length": item.length,
            "marked": list(item.marked),
        }
        for item in score.judged
    ]
    return row


def _texts(column: pa.ChunkedArray) -> Iterator[tuple[Judged, ...]]:
    """The judged texts of each row; field by field, since rows as dictionaries take five times."""
    for chunk in column.chunks:
        ends = chunk.offsets.to_pylist()
        first, last = ends[0], ends[-1]
        fields = chunk.values.slice(first, last - first)
        names = ("place", "doc_id", "truth", "verdict", "weight", "first", "length")
        strata = [STRATA[stratum] for stratum in fields.field("stratum").to_pylist()]
        marked = map(tuple, fields.field("marked").to_pylist())
        every = list(
            map(Judged, strata, *(fields.field(name).to_pylist() for name in names), marked)
        )
        for start, stop in itertools.pairwise(ends):
            yield tuple(every[start - first : stop - first])


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])
