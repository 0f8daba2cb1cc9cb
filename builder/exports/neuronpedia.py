"""How does a run become files that an instance of Neuronpedia imports in bulk?

``<out>/<model>/<layer>-<set>/`` for every layer and writer: ``release.jsonl``, ``model.jsonl``,
``sourceset.jsonl``, ``source.jsonl``, and batches ``batch-<n>.jsonl.gz`` in ``features/``,
``activations/`` and ``explanations/``. This is the layout that hijohnnylin/neuronpedia writes
(``utils/neuronpedia-utils/neuronpedia_utils/export-data.py``) and reads
(``apps/webapp/app/api/admin/import/route.ts``), and to which its dashboards are converted.

What it has no place for is counted: controls, poles without a pattern, failures, scores, ranges,
and examples' activations of the base. Explanations carry no embedding, so that search by meaning
finds them only once the instance has made some. Lists of single roles, random documents, what came
before a label was chosen, groups, floors and neighbours are not told at all. Activations are
cosines, and below zero where a token lies towards the other pole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ConfigError, StoreError, shown
from builder.exports.rows import Place, Row, activations, explanation, feature
from builder.exports.written import whole_folder, write_lines
from builder.records import ANY_ROLE, CONTENT_ROLES, POLES, Label, Pole, Score
from builder.store import AT_ONCE, DirectionRow, RunStore
from builder.weights.direction_file import load_directions

#: Features in a file, as Neuronpedia has them.
BATCH = 1024
#: Who rows belong to where an instance has no other default (its own converters assume it, too).
CREATOR_ID = "clkht01d40000jv08hvalcvly"
_NAME = re.compile(r"[a-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Names:
    """How the export is called there; each of ``[a-z0-9_-]``, but for the creator's name."""

    model: str
    release: str
    creator: str = "weightatlas"
    creator_id: str = CREATOR_ID

    @classmethod
    def of(cls, run: str, **given: str | None) -> Names:
        """The names that a run of this name gets where none are given."""
        plain = re.sub(r"[^a-z0-9_-]+", "-", run.lower()).strip("-") or "run"
        named = {key: value for key, value in given.items() if value is not None}
        return cls(**{"model": plain, "release": f"weightatlas-{plain}", **named})


@dataclass(frozen=True, slots=True)
class Exported:
    """How many rows were written, and what had no place, each by what it is."""

    written: dict[str, int]
    left_out: dict[str, int]


def export_neuronpedia(run: Path, out: Path, names: Names) -> Exported:
    """Writes the run in folder ``run`` into ``out``, which must not be there yet.

    Memory grows with vectors and labels, not with examples. Raises ConfigError for a name that
    Neuronpedia does not take or if ``out`` is there, StoreError if the run cannot be read or
    ``out`` cannot be written.
    """
    for name in (names.model, names.release, names.creator_id):
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{shown(name)!r}: Neuronpedia's names are of a-z, 0-9, - and _")
    with RunStore(run / "run.duckdb") as store, whole_folder(out) as folder:
        return _Export(run, store, folder, names).write()


class _Export:
    """One export under way."""

    def __init__(self, run: Path, store: RunStore, folder: Path, names: Names) -> None:
        self._store, self._folder, self._names = store, folder, names
        self._meta = store.meta()
        self._rows = [row for row in store.directions() if row.kind != "control"]
        self._controls = len(store.directions()) - len(self._rows)
        held = load_directions(run / "directions.safetensors")
        self._vectors = {(item.id, item.content_hash): item.vector for item in held.directions}
        self._labels: dict[tuple[str, Pole], list[Label]] = {}
        for label in store.labels():
            self._labels.setdefault((label.direction, label.pole), []).append(label)
        self._scores = {_key(score): score for score in reversed(store.scores())}
        self._ends: dict[str, tuple[float, float]] = {}
        for extent in store.ranges():
            if extent.role not in CONTENT_ROLES:
                continue
            low, high = self._ends.get(extent.direction, (0.0, 0.0))
            self._ends[extent.direction] = (min(low, extent.minimum), max(high, extent.maximum))
        self._written: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()

    def write(self) -> Exported:
        sources: dict[tuple[str, int], list[DirectionRow]] = {}
        for row in self._rows:
            sources.setdefault((row.hookpoint.writer, row.hookpoint.layer), []).append(row)
        if not sources:
            raise StoreError("the run has no directions to export; run `weightatlas scan` first")
        for (writer, layer), rows in sorted(sources.items()):
            self._source(writer, layer, rows)
            self._written["sources"] += 1
        self._count_lost()
        return Exported(dict(self._written), {k: n for k, n in self._lost.items() if n})

    def _source(self, writer: str, layer: int, rows: Sequence[DirectionRow]) -> None:
        names = self._names
        source_set = f"{names.release}-{writer.replace('_', '-')}"
        place = Place(names.model, f"{layer}-{source_set}", source_set, names.creator_id)
        folder = self._folder / place.model / place.source
        for name, row in self._about(place, writer).items():
            write_lines(folder / f"{name}.jsonl", [row])
        each = BATCH // len(POLES)
        for number, start in enumerate(range(0, len(rows), each)):
            batch = rows[start : start + each]
            for name, found in (
                ("features", self._features(place, batch)),
                ("activations", self._activations(place, batch)),
                ("explanations", self._explanations(place, batch)),
            ):
                count = write_lines(folder / name / f"batch-{number}.jsonl.gz", found)
                self._written[name] += count

    def _features(self, place: Place, rows: Sequence[DirectionRow]) -> Iterator[Row]:
        for row in rows:
            vector = self._vectors.get((row.id, row.content_hash))
            if vector is None:
                raise StoreError(
                    f"{row.id}: the run's directions.safetensors is of other weights than its "
                    "database; run `weightatlas scan` again"
                )
            histograms = self._store.histograms(row.id)
            ends = self._ends.get(row.id, (0.0, 0.0))
            for pole in POLES:
                top = ends[1] if pole == "max" else ends[0]
                yield feature(place, row, pole, vector, histograms, top)

    def _activations(self, place: Place, rows: Sequence[DirectionRow]) -> Iterator[Row]:
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            held = self._store.examples_of([row.id for row in part], role=ANY_ROLE)
            for row in part:
                for pole in POLES:
                    own = [example for example in held[row.id] if example.pole == pole]
                    self._lost["activations of the base, for an example"] += sum(
                        example.base_activations is not None for example in own
                    )
                    for found in activations(place, row, pole, own):
                        best = found["values"][found["maxValueTokenIndex"]]
                        self._lost["tokens of the template beyond the peak"] += sum(
                            value > best for value in found["values"]
                        )
                        yield found

    def _explanations(self, place: Place, rows: Sequence[DirectionRow]) -> Iterator[Row]:
        for row in rows:
            for pole in POLES:
                for label in self._labels.get((row.id, pole), ()):
                    score = self._scores.get((row.id, pole, label.labeler, label.text or ""))
                    if label.text:
                        yield explanation(place, row, pole, label, score)
                    else:
                        self._lost["answers of no consistent pattern"] += 1

    def _about(self, place: Place, writer: str) -> dict[str, Row]:
        """The four rows that describe a source."""
        names, meta = self._names, self._meta
        title = str(meta.get("title") or names.model)
        corpus = meta.get("corpus")
        held = corpus.get("sources", []) if isinstance(corpus, dict) else []
        own: dict[str, Any] = {"creatorId": place.creator, "visibility": "PUBLIC"}
        counts = self._store.counts()
        documents = sum(count.n for count in counts if count.what == "documents")
        about = f"Singular vectors of the weight difference of {writer}, one feature a pole"
        return {
            "release": {
                "name": names.release,
                "description": f"What fine-tuning wrote into the weights of {title}",
                "descriptionShort": title,
                "creatorName": names.creator,
                "urls": [],
                **own,
            },
            "model": {
                "id": place.model,
                "displayName": title,
                "displayNameShort": title,
                "layers": meta["n_layers"] if isinstance(meta.get("n_layers"), int) else 0,
                "neuronsPerLayer": 0,
                "dimension": meta["d_model"] if isinstance(meta.get("d_model"), int) else None,
                "owner": names.creator,
                "instruct": any(c.what == "roles" and c.name == "template" for c in counts),
                **own,
            },
            "sourceset": {
                "modelId": place.model,
                "name": place.source_set,
                "description": about,
                "type": "weight difference",
                "creatorName": names.creator,
                "releaseName": names.release,
                "urls": [],
                "hasDashboards": True,
                "allowInferenceSearch": False,
                **own,
            },
            "source": {
                "id": place.source,
                "modelId": place.model,
                "setName": place.source_set,
                "hasDashboards": True,
                "inferenceEnabled": False,
                "dataset": ", ".join(str(s.get("name")) for s in held if isinstance(s, dict)),
                "num_prompts": documents,
                "notes": "Activations are cosines of the residual stream and a unit vector. "
                "Feature 2r is the max pole of rank r, 2r + 1 its min pole. By weightatlas.",
                **own,
            },
        }

    def _count_lost(self) -> None:
        exported = {row.id for row in self._rows}
        lost = self._lost
        lost["controls"] = self._controls
        lost["failures of a labeler"] = sum(
            failure.direction in exported for failure in self._store.label_failures()
        )
        lost["scores (F1 stands in the notes)"] = sum(
            direction in exported for direction, *_ in self._scores
        )
        lost["ranges by role"] = sum(
            extent.direction in exported for extent in self._store.ranges()
        )


def _key(score: Score) -> tuple[str, Pole, str, str]:
    return (score.direction, score.pole, score.labeler, score.text)
