"""What does the page that compares a group of models show? Its name, its matrix, and who is in it.

What it shows of two models, or of a line of stages, is made in ``sections``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.pages import links
from builder.pages.compare.groups import NO_FILE, SAME, Group
from builder.pages.compare.labels import ALIKE, LabelsView, labels_of
from builder.pages.compare.sections import LineView, PairView, line_view, pair_view
from builder.pages.formats import name_alone
from builder.pages.render import Renderer
from builder.pages.views import RunView


@dataclass(frozen=True, slots=True)
class NamedGroup:
    """A group with the runs of the site that it holds, in its order, and its page's path.

    ``title`` names what its models have in common: the base of the first.
    """

    group: Group
    runs: tuple[RunView, ...]
    page: str
    title: str

    def address(self, one: Path, two: Path) -> str:
        """Where on the site two of its runs (folders) are compared, in either order."""
        names = {run.folder: run.name for run in self.runs}
        order = sorted((one, two), key=self.group.runs.index)
        return f"{self.page}#{links.pair_anchor(names[order[0]], names[order[1]])}"


@dataclass(frozen=True, slots=True)
class Cell:
    """How much of one model is in another: shares of directions and of energy, 0 to 1."""

    share: float
    energy: float
    address: str

    @property
    def step(self) -> int:
        """1 to 7 by the share of directions, 0 for none."""
        return min(7, 1 + int(self.share * 7)) if self.share > 0 else 0


@dataclass(frozen=True, slots=True)
class GroupView:
    """Everything on a group's page."""

    named: NamedGroup
    #: (title of the run's folder, why it could not be compared).
    missing: tuple[tuple[str, str], ...]
    #: A row a model, a cell for each model; None for itself.
    matrix: tuple[tuple[RunView, tuple[Cell | None, ...]], ...]
    lines: tuple[LineView, ...]
    labels: LabelsView
    pairs: tuple[PairView, ...]


def named_groups(runs: Sequence[RunView], groups: Sequence[Group]) -> tuple[NamedGroup, ...]:
    """The groups of a site's runs, each with a page named after its base."""
    by_folder = {run.folder: run for run in runs}
    found: list[NamedGroup] = []
    taken: list[str] = []
    for group in groups:
        own = tuple(by_folder[folder] for folder in group.runs)
        title = name_alone(own[0].base or own[0].title)
        # Two bases may have one name.
        taken += links.unique_file_names([title], taken=taken).values()
        found.append(NamedGroup(group, own, links.compare_page(taken[-1]), title))
    return tuple(found)


def pair_addresses(groups: Sequence[NamedGroup]) -> dict[tuple[Path, Path], str]:
    """Where on the site each two runs of a group are compared, in either order."""
    return {
        (one, two): named.address(one, two)
        for named in groups
        for one in named.group.runs
        for two in named.group.runs
        if one != two
    }


def entry(groups: Sequence[NamedGroup]) -> str:
    """The address that the site's navigation has for them; empty without groups."""
    if not groups:
        return ""
    return groups[0].page if len(groups) == 1 else "index.html#compare"


def compare_pages(
    renderer: Renderer, groups: Sequence[NamedGroup], titles: Mapping[Path, str]
) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the page of each group; ``titles`` are those of all runs, by folder."""
    for named in groups:
        view = group_view(named, titles)
        page = renderer.page(
            "compare.html", named.page, view=view, same_from=SAME, alike_from=ALIKE
        )
        yield named.page, page


def _public(why: str) -> str:
    """A reason without what it may say of somebody's machine."""
    if why == NO_FILE:
        return f"{why}, as where only the database was published"
    return "has a directions file that cannot be read"


def group_view(named: NamedGroup, titles: Mapping[Path, str]) -> GroupView:
    """Everything on the page of a group."""
    group, by_folder = named.group, {run.folder: run for run in named.runs}
    matrix = []
    for run in named.runs:
        cells: list[Cell | None] = []
        for other in named.runs:
            if other is run:
                cells.append(None)
                continue
            pair = group.pair(run.folder, other.folder)
            address = named.address(run.folder, other.folder).partition("#")[2]
            cells.append(Cell(pair.share(pair.one), pair.one.energy, address))
        matrix.append((run, tuple(cells)))
    return GroupView(
        named=named,
        missing=tuple(
            (titles.get(folder, folder.name), _public(why)) for folder, why in group.missing
        ),
        matrix=tuple(matrix),
        lines=tuple(line_view(group, line, by_folder) for line in group.lines),
        labels=labels_of(group, named.runs),
        pairs=tuple(
            pair_view(pair, by_folder[pair.one.run], by_folder[pair.two.run])
            for pair in group.pairs
        ),
    )
