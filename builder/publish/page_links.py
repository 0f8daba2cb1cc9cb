"""Does every link of a site lead somewhere? Pages, what they load, and places within pages.

Read with a parser as browsers do (lexbor), which takes a fourteenth of the time that the standard
library's takes. Examples beyond the first few have their places made by the page's script: those
are looked up in the file that it reads. What shards hold are pages too, each with its own address
in the page that shows them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Set
from pathlib import Path
from urllib.parse import unquote, urlsplit

from selectolax.lexbor import LexborHTMLParser

from builder.pages.layout import opened_shard
from builder.pages.links import SHELL
from builder.pages.packed import headed, opened
from builder.records import POLES, ROLES

#: Attributes that hold addresses; the last two are read by scripts.
_ADDRESSES = ("href", "src", "data-script", "data-search")
_SELECTOR = ", ".join(f"[{name}]" for name in (*_ADDRESSES, "id"))
#: Other schemes lead to this machine, or run something.
_OUTWARD = frozenset({"http", "https", "mailto"})


class PageLinks:
    """What pages have and where they lead; :meth:`add` each, then ask for :meth:`faults`."""

    def __init__(self) -> None:
        self._ids: dict[str, frozenset[str]] = {}
        #: From a page or file and a place in it to the first page that leads there.
        self._wanted: dict[tuple[str, str], str] = {}
        self._faults: list[str] = []
        #: The places that scripts make for examples, by the folder and name of a direction in a
        #: shard.
        self._scripted: dict[str, frozenset[str]] = {}

    def add_shard(self, path: str, script: bytes) -> None:
        """Takes in the directions of a shard; ``path`` is that of its script."""
        folder = posixpath.dirname(posixpath.dirname(path))
        for name, html, content in opened_shard(script):
            self.add(f"{folder}/{SHELL}.html?d={name}", html)
            self._scripted[f"{folder}/{name}"] = frozenset(_examples(content))

    def add(self, page: str, html: str) -> None:
        """Takes in one page; ``page`` is its path inside the site."""
        ids = set()
        for node in LexborHTMLParser(html).css(_SELECTOR):
            attributes = node.attributes
            if name := attributes.get("id"):
                ids.add(name)
            for key in _ADDRESSES:
                if (address := attributes.get(key)) is not None:
                    self._note(page, address)
        self._ids[page] = frozenset(ids)

    def faults(self, files: Set[str], site: Path) -> Iterator[str]:
        """A line for each address that leads nowhere; ``files`` are those of the site."""
        yield from self._faults
        scripted: dict[str, frozenset[str]] = {}
        for (target, place), page in self._wanted.items():
            if target not in files and target not in self._ids:
                yield f"{page}: links to {target}, which is not there"
            elif place and target in self._ids and place not in self._ids[target]:
                if target not in scripted:
                    scripted[target] = self._anchors(site, target)
                if place not in scripted[target]:
                    yield f"{page}: links to #{place} of {target}, which has no such place"

    def _note(self, page: str, address: str) -> None:
        try:
            parts = urlsplit(address)
        except ValueError:
            self._faults.append(f"{page}: {address!r} is no address")
            return
        if parts.scheme or parts.netloc:
            if parts.scheme not in _OUTWARD:
                self._faults.append(f"{page}: {address!r} is an address that readers cannot follow")
            return
        if parts.path.startswith("/"):
            self._faults.append(f"{page}: {address!r} leads out of a site that lies under a path")
            return
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
        if parts.query and posixpath.basename(path) == f"{SHELL}.html":
            path = f"{path}?{unquote(parts.query)}"
        self._wanted.setdefault((path if parts.path else page, unquote(parts.fragment)), page)

    def _anchors(self, site: Path, page: str) -> frozenset[str]:
        """The places that a direction's script makes for examples."""
        folder, _, name = page.rpartition("/")
        name = name.partition("?d=")[2] or name.removesuffix(".html")
        known = self._scripted.get(f"{folder}/{name}")
        if known is not None:
            return known
        script = site / folder / "d" / f"{name}.js"
        return frozenset(_examples(opened(script.read_bytes())) if script.is_file() else ())


def _examples(content: bytes) -> Iterator[str]:
    header, _ = headed(content)
    for row in header["examples"]:
        yield f"{POLES[row[0]]}-{ROLES[row[1]]}-{row[6]}"
