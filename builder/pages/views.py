"""What do the pages say about a run? Plain values read once from its database.

A :class:`RunView` holds what every page of a run may need and is small: no example, no histogram.
Those are read per direction while its page is made (:mod:`builder.pages.direction_view`).
What a run's ``meta`` may lack, the pages leave out or call unknown; nothing is made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from builder.config import load_settings
from builder.pages import links
from builder.pages.formats import place
from builder.pages.label_view import Chance, PoleView, State, pole_view
from builder.records import (
    CONTENT_ROLES,
    CONTROLS,
    POLES,
    Label,
    LabelFailure,
    Pole,
    Range,
    Score,
    Shift,
    Spectrum,
    Spend,
)
from builder.scores.percentile import control_scores
from builder.store import Count, DirectionRow, Mask, RunStore

#: What a database may take while pages are made: most of it is read once, from front to back.
MEMORY = "200MB"
#: Roles with fewer tokens say nothing about tails: their mean and spread are not known well.
MIN_TOKENS = 100
#: What a control of each kind tells, beside what it is (records.CONTROLS).
CONTROL_LESSONS = {
    "random": "Nothing wrote it: it shows what chance gives, and its labels mean nothing.",
    "base": "No fine-tuning wrote it: what it shows was in the model before.",
    "shuffled": "It keeps the sizes of the change and nothing else: it shows what chance gives, "
    "and its labels mean nothing.",
}
#: Controls that show what chance gives. What the base wrote need not look like chance.
CHANCE = ("random", "shuffled")

Measured = TypeVar("Measured", Range, Shift)


@dataclass(frozen=True, slots=True)
class Tail:
    """The farthest end of a direction: standard deviations beyond the mean, where and whose."""

    distance: float
    pole: Pole
    role: str


@dataclass(frozen=True, slots=True)
class DirectionView:
    """One direction as lists and links show it; ``page`` is its address inside the site."""

    row: DirectionRow
    name: str
    page: str
    #: Path of the file with its data; several directions may share one.
    data: str
    poles: dict[Pole, PoleView]
    ranges: tuple[Range, ...]
    tail: Tail | None
    #: Of the base at the same tokens, and how far tuning moved them; empty without the base.
    base_ranges: tuple[Range, ...] = ()
    shifts: tuple[Shift, ...] = ()

    @property
    def link(self) -> str:
        """Its address from the other pages of its model."""
        return self.page.rpartition("/")[2]

    @property
    def is_control(self) -> bool:
        """Whether no fine-tuning wrote it."""
        return self.row.kind == "control"

    @property
    def control(self) -> str:
        """The kind of a control (one of CONTROLS); empty for a direction from the weights."""
        return self.row.hookpoint.writer if self.is_control else ""

    def tail_at(self, pole: Pole) -> Tail | None:
        """The farthest end of one pole."""
        return farthest(self.ranges, (pole,))


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as its pages and the home page show it; ``name`` is its file name in addresses."""

    folder: Path
    name: str
    title: str
    base: str | None
    tuned: str | None
    base_revision: str | None
    tuned_revision: str | None
    method: str
    how: str
    d_model: int | None
    n_layers: int
    facts: dict[str, str]
    settings: dict[str, str]
    corpus: Mapping[str, Any]
    versions: dict[str, str]
    directions: tuple[DirectionView, ...]
    spectra: tuple[Spectrum, ...]
    counts: tuple[Count, ...]
    labelers: tuple[str, ...] = field(default=())
    #: What labels and scores cost, by stage and model.
    spend: tuple[Spend, ...] = ()
    #: How the labels of controls that say what chance gives scored.
    control_scores: Chance = field(default_factory=dict)
    #: Whether its directions lie in shards (:mod:`builder.pages.layout`).
    is_sharded: bool = False
    #: The directions that come from the weights; found once, for every page asks for them.
    own: tuple[DirectionView, ...] = field(init=False, repr=False)
    #: The controls by kind, in the order of CONTROLS; kinds without any are left out.
    controls: Mapping[str, tuple[DirectionView, ...]] = field(init=False, repr=False)

    #: The directions of each matrix, and its spectrum, by layer and writer.
    by_matrix: Mapping[tuple[int, str], tuple[DirectionView, ...]] = field(init=False, repr=False)
    _spectra_by: Mapping[tuple[int, str], Spectrum] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        own = tuple(item for item in self.directions if not item.is_control)
        controls: dict[str, list[DirectionView]] = {kind: [] for kind in CONTROLS}
        for item in self.directions:
            if item.is_control:
                controls.setdefault(item.control, []).append(item)
        object.__setattr__(self, "own", own)
        matrices: dict[tuple[int, str], list[DirectionView]] = {}
        for item in self.directions:
            place = item.row.hookpoint
            matrices.setdefault((place.layer, place.writer), []).append(item)
        by_matrix = {key: tuple(items) for key, items in matrices.items()}
        object.__setattr__(self, "by_matrix", by_matrix)
        spectra = {(s.hookpoint.layer, s.hookpoint.writer): s for s in reversed(self.spectra)}
        object.__setattr__(self, "_spectra_by", spectra)
        held = {kind: tuple(items) for kind, items in controls.items() if items}
        object.__setattr__(self, "controls", held)

    @property
    def page(self) -> str:
        """Path of its page inside the site."""
        return links.model_page(self.name)

    @property
    def chance(self) -> tuple[DirectionView, ...]:
        """The controls that say what chance gives."""
        return tuple(item for kind in CHANCE for item in self.controls.get(kind, ()))

    def spectrum_of(self, item: DirectionView) -> Spectrum | None:
        """The spectrum that a direction's singular value stands in; None of a control."""
        place = item.row.hookpoint
        return self._spectra_by.get((place.layer, place.writer))

    def total(self, what: str) -> int | None:
        """The sum of a count over its names, or None where nothing was counted."""
        found = [count.n for count in self.counts if count.what == what]
        return sum(found) if found else None

    def document_shares(self) -> dict[str, float]:
        """Every source's share of the documents scanned."""
        total = self.total("documents") or 0
        documents = [count for count in self.counts if count.what == "documents"]
        return {count.name: count.n / total for count in documents} if total else {}

    def states(self) -> dict[State, int]:
        """How many poles of the directions from the weights are in each state."""
        found: dict[State, int] = {"label": 0, "none": 0, "failed": 0, "unlabelled": 0}
        for item in self.own:
            for pole in item.poles.values():
                found[pole.state] += 1
        return found

    def cost(self) -> float | None:
        """What labels and scores cost in US dollars; None where no price is known or none is due.

        Models without a known price are left out.
        """
        known = [item.cost for item in self.spend if item.cost is not None]
        return sum(known) if known else None


def database(folder: Path) -> Path:
    """Where a run's database lies."""
    return folder / "run.duckdb"


def open_run(folder: Path, *, mask: Mask | None = None, threads: int | None = None) -> RunStore:
    """The database of a run, for reading; its texts go through ``mask``."""
    return RunStore(database(folder), memory=MEMORY, threads=threads, mask=mask)


def read_run(folder: Path, store: RunStore) -> RunView:
    """Everything but examples and histograms of the run in ``folder``, whose store is open.

    Raises ConfigError if the run has a ``run.toml`` that cannot be read.
    """
    meta = store.meta()
    settings = meta.get("settings")
    if not isinstance(settings, Mapping):
        recipe = folder / "run.toml"
        settings = load_settings(recipe).model_dump(mode="json") if recipe.is_file() else {}
    model = _mapping(meta.get("model"))
    base, tuned = _mapping(model.get("base")), _mapping(model.get("tuned"))
    name = str(meta.get("name") or folder.resolve().name)
    method = str(meta.get("method") or "delta")
    rows = store.directions()
    labels = store.labels(candidates=True)
    scores = store.scores()
    failures = store.label_failures()
    ids = {row.id for row in rows if row.kind == "control" and row.hookpoint.writer in CHANCE}
    chosen = [label for label in labels if label.is_chosen]
    chance = control_scores(scores, chosen, failures, ids)
    directions = _directions(
        rows, links.file_name(name), [*labels, *failures], scores, chance, store
    )
    return RunView(
        folder=folder,
        name=links.file_name(name),
        title=str(meta.get("title") or _last_part(tuned.get("path")) or name),
        base=_path(base),
        tuned=_path(tuned),
        base_revision=_text(base.get("revision")),
        tuned_revision=_text(tuned.get("revision")),
        method=method,
        how=_how(method, str(model.get("kind") or ""), _mapping(meta.get("facts"))),
        d_model=meta["d_model"] if isinstance(meta.get("d_model"), int) else None,
        n_layers=_layers(meta.get("n_layers"), rows),
        facts={str(key): str(value) for key, value in _mapping(meta.get("facts")).items()},
        settings=dict(flat(settings)),
        corpus=_mapping(meta.get("corpus")),
        versions={str(key): str(item) for key, item in _mapping(meta.get("versions")).items()},
        directions=directions,
        spectra=tuple(store.spectra()),
        counts=tuple(store.counts()),
        labelers=tuple(sorted({label.labeler for label in labels})),
        spend=tuple(store.spend()),
        control_scores=chance,
    )


def farthest(ranges: Iterable[Range], poles: tuple[Pole, ...] = POLES) -> Tail | None:
    """The end farthest from its role's mean in its role's standard deviations; content roles only.

    Roles with fewer than MIN_TOKENS tokens are left out; None if no role is left.
    """
    best: Tail | None = None
    for item in ranges:
        if item.role not in CONTENT_ROLES or item.n < MIN_TOKENS or item.std <= 0:
            continue
        for pole in poles:
            reach = item.maximum - item.mean if pole == "max" else item.mean - item.minimum
            tail = Tail(reach / item.std, pole, item.role)
            if best is None or tail.distance > best.distance:
                best = tail
    return best


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Dotted names and values of nested settings, as pages show them."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(v, Mapping) for v in value):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from flat(item, f"{name}.{index}.")
                else:
                    yield f"{name}.{index}", place(str(item))
        elif value is not None and value != "":
            yield name, str(value).lower() if isinstance(value, bool) else place(str(value))


def _directions(
    rows: list[DirectionRow],
    run: str,
    given: list[Label | LabelFailure],
    given_scores: list[Score],
    chance: Chance,
    store: RunStore,
) -> tuple[DirectionView, ...]:
    answers: dict[tuple[str, Pole], list[Label | LabelFailure]] = {}
    for answer in given:
        answers.setdefault((answer.direction, answer.pole), []).append(answer)
    scores: dict[tuple[str, Pole], list[Score]] = {}
    for score in given_scores:
        scores.setdefault((score.direction, score.pole), []).append(score)
    ranges, base = _by_direction(store.ranges()), _by_direction(store.ranges("base"))
    shifts = _by_direction(store.shifts())
    names = links.unique_file_names((row.id for row in rows), taken=("index", links.SHELL))
    return tuple(
        DirectionView(
            row=row,
            name=names[row.id],
            page=links.direction_page(run, names[row.id]),
            data=links.api_file(run, names[row.id]),
            poles={
                pole: pole_view(
                    pole, answers.get((row.id, pole), []), scores.get((row.id, pole), []), chance
                )
                for pole in POLES
            },
            ranges=ranges.get(row.id, ()),
            tail=farthest(ranges.get(row.id, ())),
            base_ranges=base.get(row.id, ()),
            shifts=shifts.get(row.id, ()),
        )
        for row in rows
    )


def _by_direction(items: Iterable[Measured]) -> dict[str, tuple[Measured, ...]]:
    found: dict[str, list[Measured]] = {}
    for item in items:
        found.setdefault(item.direction, []).append(item)
    return {direction: tuple(held) for direction, held in found.items()}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return str(value) if value else None


def _path(model: Mapping[str, Any]) -> str | None:
    return place(str(model["path"])) if model.get("path") else None


def _last_part(path: Any) -> str:
    return str(path).replace("\\", "/").rstrip("/").rpartition("/")[2] if path else ""


def _how(method: str, kind: str, facts: Mapping[str, Any]) -> str:
    """How the model was tuned, as far as its files say."""
    if method == "raw":
        return "weights alone, no base"
    if "base_adapter" in facts:  # what is compared with is itself a tune
        return "two tunes of one model"
    return {"adapter": "LoRA adapter", "checkpoint": "full fine-tune"}.get(kind, "fine-tune")


def _layers(stated: Any, rows: list[DirectionRow]) -> int:
    seen = max((row.hookpoint.layer for row in rows), default=-1) + 1
    return max(stated, seen) if isinstance(stated, int) else seen
