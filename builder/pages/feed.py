"""Which of a site's pages are there, and what is new? A site map and a feed, with full addresses.

Both need to know where the site will be (``site.url``); without that there are none.
"""

from __future__ import annotations

import email.utils
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from builder.errors import SiteError, shown
from builder.pages import links
from builder.pages.spans import plain

#: Addresses that one site map may hold (sitemaps.org); more are spread over several.
MOST = 50_000
NOT_FOUND = "404.html"
#: Path of the feed of findings.
FEED = "findings.xml"
_SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"
_ATOM = "http://www.w3.org/2005/Atom"
_LINK = re.compile(r"([a-z0-9._-]+/)*[a-z0-9._-]+(#[A-Za-z0-9._-]+)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a feed; ``link`` is a page of the site, with a place in it if need be.

    ``id`` stays the same whatever else of the entry changes; ``date`` None if it has none.
    """

    id: str
    title: str
    description: str
    link: str
    date: date | None = None


def feed(entries: Sequence[Entry], title: str, url: str, path: str = FEED) -> bytes:
    """The entries as RSS 2.0, in their order; ``url`` is the address of the site's top.

    No clock is read: the newest date of an entry is that of the feed. Raises SiteError for a link
    that is no page of a site, or if two entries have one id.
    """
    ElementTree.register_namespace("atom", _ATOM)
    rss = ElementTree.Element("rss", version="2.0")
    channel = ElementTree.SubElement(rss, "channel")
    _put(channel, "title", title)
    _put(channel, "link", url)
    _put(channel, "description", f"Findings of {title}")
    ElementTree.SubElement(
        channel,
        f"{{{_ATOM}}}link",
        href=f"{url}{path}",
        rel="self",
        type="application/rss+xml",
    )
    if dates := [entry.date for entry in entries if entry.date]:
        _put(channel, "lastBuildDate", _written(max(dates)))
    seen: set[str] = set()
    for entry in entries:
        if not _LINK.fullmatch(entry.link) or ".." in entry.link.split("/"):
            raise SiteError(f"{shown(entry.link)!r}: not a page of a site; the feed cannot link it")
        if entry.id in seen:
            raise SiteError(f"{shown(entry.id)!r}: two entries of the feed have this id")
        seen.add(entry.id)
        item = ElementTree.SubElement(channel, "item")
        _put(item, "title", entry.title)
        _put(item, "link", f"{url}{entry.link}")
        _put(item, "description", entry.description)
        guid = ElementTree.SubElement(item, "guid", isPermaLink="false")
        guid.text = plain(entry.id)
        if entry.date:
            _put(item, "pubDate", _written(entry.date))
    return _document(rss)


def sitemap_files(paths: Iterable[str], url: str) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of the site map of these files, of which pages count; several for many."""
    empty = (NOT_FOUND, f"{links.SHELL}.html")
    pages = sorted(
        path for path in paths if path.endswith(".html") and path.rpartition("/")[2] not in empty
    )
    if len(pages) <= MOST:
        yield "sitemap.xml", _locations("urlset", "url", [f"{url}{page}" for page in pages])
        return
    maps = []
    for number, start in enumerate(range(0, len(pages), MOST), 1):
        maps.append(f"sitemap-{number}.xml")
        part = [f"{url}{page}" for page in pages[start : start + MOST]]
        yield maps[-1], _locations("urlset", "url", part)
    yield "sitemap.xml", _locations("sitemapindex", "sitemap", [f"{url}{name}" for name in maps])


def _locations(root: str, each: str, addresses: Iterable[str]) -> bytes:
    found = ElementTree.Element(root, xmlns=_SITEMAP)
    for address in addresses:
        _put(ElementTree.SubElement(found, each), "loc", address)
    return _document(found)


def _put(parent: ElementTree.Element, name: str, text: str) -> None:
    # XML has no way to write most hidden characters, so that they are named.
    ElementTree.SubElement(parent, name).text = plain(text)


def _written(day: date) -> str:
    return email.utils.format_datetime(datetime.combine(day, time(), UTC), usegmt=True)


def _document(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root, "")
    text: str = ElementTree.tostring(root, "unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()
