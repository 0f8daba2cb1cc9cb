"""Which files hold the directions of a site? One page each, or shards where they are very many.

A direction takes some 45 kB, and hosts of static sites take about a gigabyte. Packed together, the
pages of neighbours take a tenth of what they do alone: they differ in little. So of very many
directions only those that readers most likely want have a page of their own; a page for each model
shows the others, out of *shards*: scripts that hold what the pages of :data:`PER_SHARD` directions
would.

A *unit* is what is made at once: a direction, or a shard.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from builder.config import SiteSettings
from builder.execute import Files
from builder.pages import links
from builder.pages.map_view import best_score
from builder.pages.packed import headed, opened, script, with_head
from builder.pages.views import DirectionView, RunView
from builder.store import AT_ONCE

#: A site with more directions has shards, unless its settings say otherwise.
MOST_PAGES = 25_000
PER_SHARD = AT_ONCE // 2
#: Directions of a model that have a page of their own all the same.
STANDING = 1_000
#: Examples at each pole of a direction in a shard; more take more than half of its bytes.
EXAMPLES = 10
_MAIN, _END = b'<main id="content" tabindex="-1">', b"</main>"
_TITLE, _TITLE_END = b"<title>", b"</title>"


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of one direction: its page, what the page's script gets, and its JSON."""

    page: bytes
    content: bytes
    data: bytes


def decided(settings: SiteSettings, directions: int) -> SiteSettings:
    """The settings of a site with so many directions, its layout chosen."""
    layout = settings.layout
    if layout == "auto":
        layout = "shards" if directions > MOST_PAGES else "pages"
    examples = min(settings.examples, EXAMPLES) if layout == "shards" else settings.examples
    return settings.model_copy(update={"layout": layout, "examples": examples})


def placed(run: RunView, settings: SiteSettings) -> RunView:
    """The run with the addresses that its directions have in this layout, which is decided."""
    if settings.layout != "shards":
        return run
    own = {item.name for item in standing(run)}
    return dataclasses.replace(
        run,
        is_sharded=True,
        directions=tuple(
            dataclasses.replace(
                item,
                page=item.page if item.name in own else links.shelled(run.name, item.name),
                data=links.api_shard(run.name, shard_of(place)),
            )
            for place, item in enumerate(run.directions)
        ),
    )


def standing(run: RunView) -> list[DirectionView]:
    """The directions with a page of their own: labels that score best, then the largest."""

    def worth(item: DirectionView) -> tuple[float, bool, float, str]:
        best = best_score(item)
        f1 = best.score.f1 if best and not best.doubt else None
        labelled = any(pole.text for pole in item.poles.values())
        return -(f1 or 0.0), not labelled, -(item.row.sigma or 0.0), item.name

    return sorted(run.own, key=worth)[:STANDING]


def units(run: RunView) -> list[range]:
    """The directions of each unit, by their places in the run."""
    per, n = (PER_SHARD if run.is_sharded else 1), len(run.directions)
    return [range(first, min(first + per, n)) for first in range(0, n, per)]


def files_of(run: RunView, unit: range) -> tuple[str, ...]:
    """Paths of the files of a unit."""
    items = run.directions[unit.start : unit.stop]
    if not run.is_sharded:
        return tuple(
            path
            for item in items
            for path in (
                item.page,
                links.direction_script(run.name, item.name),
                item.data,
            )
        )
    number = shard_of(unit.start)
    own = [links.direction_page(run.name, item.name) for item in items if has_page(run, item)]
    return links.shard_script(run.name, number), links.api_shard(run.name, number), *own


def files(run: RunView, unit: range, made: Sequence[Made]) -> Files:
    """The files of a unit, from what was made of each of its directions."""
    items = run.directions[unit.start : unit.stop]
    if not run.is_sharded:
        (item,), (one,) = items, made
        return {
            item.page: one.page,
            links.direction_script(run.name, item.name): script("page", one.content),
            item.data: one.data,
        }
    number = shard_of(unit.start)
    found = {
        links.shard_script(run.name, number): shard([item.name for item in items], made),
        links.api_shard(run.name, number): gzip.compress(
            b"".join(one.data.rstrip(b"\n") + b"\n" for one in made), 9, mtime=0
        ),
    }
    for item, one in zip(items, made, strict=True):
        if has_page(run, item):
            found[item.page] = one.page
    return found


def shard(names: Sequence[str], made: Sequence[Made]) -> bytes:
    """The script of a shard.

    Its bytes are the length of a JSON header (uint32, little endian), the header, and what it gives
    the lengths of: the content of the page of each direction in HTML, then what each page's script
    gets (:class:`builder.pages.packed.Packer`).
    """
    bodies = [_between(one.page, _MAIN, _END) for one in made]
    header = {
        "names": list(names),
        "titles": [html.unescape(_between(one.page, _TITLE, _TITLE_END).decode()) for one in made],
        "html": [len(body) for body in bodies],
        "content": [len(one.content) for one in made],
    }
    return script("shard", with_head(header, (*bodies, *(one.content for one in made))))


def opened_shard(script: bytes) -> Iterator[tuple[str, str, bytes]]:
    """(name, main part of its page, what its script gets) of each direction of a shard."""
    content = opened(script)
    header, at = headed(content)
    body_at, content_at = at, at + sum(header["html"])
    for name, length, size in zip(header["names"], header["html"], header["content"], strict=True):
        body = content[body_at : body_at + length].decode()
        yield name, body, content[content_at : content_at + size]
        body_at, content_at = body_at + length, content_at + size


def names_script(run: RunView) -> bytes:
    """The script that says in which order the directions stand in shards, one name a line."""
    return script("names", "\n".join(item.name for item in run.directions).encode())


def shard_of(place: int) -> int:
    """The number of the shard of the direction at this place of its run."""
    return place // PER_SHARD + 1


def has_page(run: RunView, item: DirectionView) -> bool:
    """Whether a direction has a page of its own."""
    return item.page == links.direction_page(run.name, item.name)


def own_pages(run: RunView, cut: Iterable[range]) -> dict[range, int]:
    """How many directions of each unit have a page of their own."""
    items = run.directions
    return {unit: sum(has_page(run, items[place]) for place in unit) for unit in cut}


def made_of(names: Sequence[str]) -> str:
    """What a unit is made of, from what the pages of its directions are."""
    if len(names) == 1:
        return names[0]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _between(page: bytes, start: bytes, end: bytes) -> bytes:
    first = page.index(start) + len(start)
    return page[first : page.rindex(end)]
