"""What does the body of a finding hold? CommonMark with tables, and citations in ``[[…]]``.

Parsed by markdown-it-py without HTML. What could leave the page or show what is not in the site is
found here as a fault: images, and links to anything but the web, a mail address, or a page of the
site. :mod:`builder.pages.markdown` writes the tokens as HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from builder.errors import shown
from builder.findings.citation import LONGEST, CitationError, parse_citation
from builder.findings.finding import Citation

#: Where links may lead besides the site's own pages.
SCHEMES = frozenset({"http", "https", "mailto"})
CITATION = "citation"


@dataclass(frozen=True, slots=True)
class SiteLink:
    """A relative link of a body, to be checked against the pages of the site."""

    address: str
    line: int


@dataclass(frozen=True, slots=True)
class Body:
    """A parsed body. Lines are those of the file.

    A token of type ``citation`` has its place in ``citations`` as ``meta["at"]``.
    """

    tokens: Sequence[Token]
    citations: tuple[Citation, ...]
    links: tuple[SiteLink, ...]
    #: (line, what is wrong) of everything that keeps the body from being shown.
    faults: tuple[tuple[int, str], ...]


def parse_body(text: str, first_line: int) -> Body:
    """The body of a file, whose first line is ``first_line`` there."""
    tokens = _parser().parse(text)
    citations: list[Citation] = []
    links: list[SiteLink] = []
    faults: list[tuple[int, str]] = []
    for token, line in _inline_tokens(tokens, first_line):
        if token.type == "image":
            faults.append((line, "images are not shown; cite an example, or link to the image"))
        elif token.type == "link_open":
            address = str(token.attrs.get("href", ""))
            fault = _link_fault(address)
            if fault:
                faults.append((line, fault))
            elif not urlsplit(address).scheme:
                links.append(SiteLink(address, line))
        elif token.type == CITATION:
            try:
                citation = parse_citation(token.content, line)
            except CitationError as error:
                faults.append((line, f"{error} (write \\[[ for brackets that cite nothing)"))
            else:
                token.meta = {"at": len(citations)}
                citations.append(citation)
    return Body(tokens, tuple(citations), tuple(links), tuple(faults))


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")
    parser.inline.ruler.before("link", CITATION, _citation)
    # Every link becomes a token, so that one that is not allowed is a fault and not silently text.
    parser.validateLink = lambda url: True  # type: ignore[method-assign]
    return parser


def _citation(state: StateInline, silent: bool) -> bool:
    """The inline rule of ``[[…]]`` on one line."""
    if not state.src.startswith("[[", state.pos):
        return False
    end = state.src.find("]]", state.pos + 2, min(state.posMax, state.pos + LONGEST))
    if end < 0 or "\n" in state.src[state.pos : end]:
        return False
    if not silent:
        token = state.push(CITATION, "", 0)
        token.content = state.src[state.pos + 2 : end]
    state.pos = end + 2
    return True


def _inline_tokens(tokens: Sequence[Token], first_line: int) -> Iterator[tuple[Token, int]]:
    """Each inline token with its line."""
    line = first_line
    for block in tokens:
        if block.map:
            line = first_line + block.map[0]
        at = line
        for token in block.children or ():
            yield token, at
            at += token.type in ("softbreak", "hardbreak")


def _link_fault(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError as error:
        return f"{shown(address)}: no address: {error}"
    if parts.scheme in SCHEMES and (parts.netloc or parts.scheme == "mailto"):
        return ""
    if parts.scheme or parts.netloc or address.startswith(("/", "\\")) or not address:
        return (
            f"link to {shown(repr(address))}: links lead to http, https or mailto addresses, or to "
            "pages of the site by a relative path"
        )
    return ""
