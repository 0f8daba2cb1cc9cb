"""How well do a run's labels do? Scores, with every text that was judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from builder.records import POLES, STRATA, Judged, Pole, Score
from builder.store.label_tables import LabelTables
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
        where, values = ["TRUE"], []
        if direction is not None:
            where.append("id = ?")
            values.append(direction)
        if not candidates:
            where.append("split = 'test'")
        rows = self._connection.execute(
            f"SELECT id, pole, {', '.join('scores.' + name for name in _PLAIN)}, "
            f"{', '.join(_PAIRS)}, between_share, faults, {'judged' if judged else '[]'} "
            f"FROM scores JOIN directions USING (direction) WHERE {' AND '.join(where)} "
            "ORDER BY direction, pole, labeler, scorer, split DESC, candidate",
            values,
        ).fetchall()
        found = []
        for direction_id, pole, *rest in rows:
            plain = dict(zip(_PLAIN, rest, strict=False))
            f1, auprc, chance, between, faults, texts = rest[len(_PLAIN) :]
            found.append(
                Score(
                    direction=direction_id,
                    pole=POLES[pole],
                    f1_interval=_pair(f1),
                    auprc_interval=_pair(auprc),
                    chance=_pair(chance),
                    between=between,
                    faults=dict(faults),
                    judged=tuple(_judged(text) for text in texts),
                    **plain,
                )
            )
        return found

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


def _judged(row: dict[str, Any]) -> Judged:
    return Judged(
        stratum=STRATA[row["stratum"]],
        place=row["place"],
        doc_id=row["doc_id"],
        truth=row["truth"],
        verdict=row["verdict"],
        weight=row["weight"],
        first=row["first"],
        length=row["length"],
        marked=tuple(row["marked"]),
    )


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])
