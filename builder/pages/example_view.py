"""What does a page say of one example? A few as HTML, all of them packed for its script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from builder.pages.packed import Packer
from builder.pages.spans import Scale, highlight, near_peak, plain
from builder.pages.veils import Veiled, veiled_places
from builder.records import ANY_ROLE, POLES, ROLES, Example, Pole, Range, Window

#: Examples at each pole that stand in the page itself; the others come with its script.
IN_PAGE = 2


@dataclass(frozen=True, slots=True)
class ExampleView:
    """One max-activating example and the lists of the page that it belongs to."""

    example: Example
    #: ``any``, its role, or both.
    lists: tuple[str, ...]
    #: Standard deviations of its role from its role's mean; None where they are not known.
    distance: float | None

    @property
    def anchor(self) -> str:
        """Its place in the page (``max-user-3``)."""
        return anchor_of(self.example)

    def is_after(self, context: int) -> bool:
        """Whether the document has tokens before the ``context`` ones before the peak."""
        return self.example.window.start + max(0, self.example.peak - context) > 0


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of a direction: the most extreme first at each pole, each document once."""

    views: dict[Pole, tuple[ExampleView, ...]]
    #: Lists one can switch to, with how many examples each has; the first one is shown at first.
    lists: tuple[tuple[str, int], ...]
    html: dict[Pole, tuple[tuple[ExampleView, Markup], ...]] = field(default_factory=dict)

    def every(self) -> Iterable[ExampleView]:
        """Those of both poles, the max pole's first."""
        for pole in POLES:
            yield from self.views[pole]

    def joint(self) -> list[Example]:
        """The examples of the joint list, the max pole's first, as far as they are kept."""
        return [view.example for view in self.every() if ANY_ROLE in view.lists]


def opening(context: int) -> int:
    """How many tokens on each side of the peak are shown at first, of those that are kept."""
    return max(1, context // 2)


def anchor_of(example: Example) -> str:
    """An example's place in its direction's page."""
    return f"{example.pole}-{example.role}-{example.window.doc_id}"


def examples_view(
    best: Sequence[Example],
    ranked: Sequence[Example],
    ranges: Mapping[str, Range],
    scale: Scale,
    context: int,
) -> Examples:
    """The examples of both lists: ``best`` whatever the role, ``ranked`` those of single roles.

    ``context`` tokens are kept on each side of the peak, half as many of what is only in a role's
    list.
    """
    in_any, in_role = {_key(example) for example in best}, {_key(example) for example in ranked}
    unique = {_key(example): example for example in (*ranked, *best)}
    found: dict[Pole, list[ExampleView]] = {pole: [] for pole in POLES}
    for key, example in unique.items():
        lists = (ANY_ROLE,) * (key in in_any) + (example.role,) * (key in in_role)
        kept = near_peak(example, context if key in in_any else opening(context))
        found[example.pole].append(
            ExampleView(kept, lists, distance_of(example, ranges.get(example.role)))
        )
    views: dict[Pole, tuple[ExampleView, ...]] = {
        pole: tuple(sorted(found[pole], key=_order)) for pole in POLES
    }
    held = [name for own in views.values() for view in own for name in view.lists]
    counts = tuple((name, held.count(name)) for name in (ANY_ROLE, *ROLES) if name in held)
    first = counts[0][0] if counts else ""
    html: dict[Pole, tuple[tuple[ExampleView, Markup], ...]] = {
        pole: tuple(
            (view, highlight(near_peak(view.example, opening(context)), scale))
            for view in [view for view in views[pole] if first in view.lists][:IN_PAGE]
        )
        for pole in POLES
    }
    return Examples(views, counts, html)


def pack(examples: Examples, packer: Packer) -> dict[str, Any]:
    """Adds all examples to a page's file; gives their part of its header.

    ``examples`` are rows of [pole, role, whether in the joint list (1) and its role's (2), value,
    distance, source, document, near-duplicates, repeats, first token, peak, roles]; ``texts`` are
    theirs, in the same order. ``roles`` are runs of [role, tokens], 0 where there is one role only.
    """
    sources: dict[str, int] = {}
    rows, texts = [], []
    for view in examples.every():
        example, window = view.example, view.example.window
        texts.append(packer.text(window))
        packer.values(example.activations, example.base_activations)
        rows.append(
            [
                POLES.index(example.pole),
                ROLES.index(example.role),
                (ANY_ROLE in view.lists) + 2 * (example.role in view.lists),
                round(example.value, 4),
                None if view.distance is None else round(view.distance, 1),
                sources.setdefault(plain(window.source), len(sources)),
                window.doc_id,
                example.duplicates,
                example.repeats,
                window.start,
                example.peak,
                role_runs(example.roles.tolist()),
            ]
        )
    return {"sources": list(sources), "examples": rows, "texts": texts}


def role_runs(roles: Sequence[int]) -> list[list[int]] | int:
    """Runs of [role, tokens]; 0 where all tokens have one role."""
    if len(set(roles)) < 2:
        return 0
    runs: list[list[int]] = []
    for role in roles:
        if runs and runs[-1][0] == role:
            runs[-1][1] += 1
        else:
            runs.append([role, 1])
    return runs


def texts_script(windows: Sequence[Window], veiled: Veiled) -> bytes:
    """The file of random documents that the pages of all directions of a run refer to by place.

    ``veiled`` says of which sources texts are shown on a click only.
    """
    packer = Packer()
    sources: dict[str, int] = {}
    texts = [packer.text(window) for window in windows]
    rows = [
        [sources.setdefault(plain(window.source), len(sources)), window.doc_id, window.start]
        for window in windows
    ]
    header = {"sources": list(sources), "windows": rows, "texts": texts}
    return packer.file("texts", header | veiled_places(list(sources), veiled))


def _key(example: Example) -> tuple[str, str, int]:
    return (example.pole, example.role, example.window.doc_id)


def _order(view: ExampleView) -> tuple[float, int, str]:
    example = view.example
    value = -example.value if example.pole == "max" else example.value
    return (value, example.window.doc_id, example.role)


def distance_of(example: Example, extent: Range | None) -> float | None:
    """Standard deviations of an example from the mean of its role; None where not known."""
    if extent is None or extent.std <= 0:
        return None
    return (example.value - extent.mean) / extent.std
