"""How does the body of a finding become HTML? Token by token, with every text made visible.

Only what is named here is written: a kind of token that is not known is an error, not markup. No
attribute comes from the body but the address of a link; classes, styles and ids of markdown-it-py,
such as the alignment of a table's column, are dropped or replaced by the site's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markdown_it.token import Token
from markupsafe import Markup

from builder.findings.body import CITATION, Body
from builder.pages.spans import plain, visible

_PLAIN = {
    "paragraph": "p",
    "bullet_list": "ul",
    "list_item": "li",
    "blockquote": "blockquote",
    "thead": "thead",
    "tbody": "tbody",
    "tr": "tr",
    "em": "em",
    "strong": "strong",
}


class _Headings:
    """Levels of headings below one of level 1, without gaps whatever the body's levels are."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def level(self, own: int) -> int:
        while self._open and self._open[-1] >= own:
            self._open.pop()
        self._open.append(own)
        return min(6, 1 + len(self._open))


def body_html(body: Body, cite: Callable[[int], Markup], address: Callable[[str], str]) -> Markup:
    """The body as HTML.

    ``cite`` gives the link of the citation at a place in ``body.citations``; ``address`` what a
    relative link of the body is on the finding's page.
    """
    return Markup("").join(_written(body.tokens, cite, address, _Headings()))


def _written(
    tokens: Sequence[Token],
    cite: Callable[[int], Markup],
    address: Callable[[str], str],
    headings: _Headings,
) -> list[Markup]:
    parts: list[Markup] = []
    opened: list[Markup] = []
    for token in tokens:
        if token.type == "inline":
            parts += _written(token.children or (), cite, address, headings)
        elif token.nesting > 0 and not token.hidden:
            opening, closing = _element(token, address, headings)
            parts.append(opening)
            opened.append(closing)
        elif token.nesting < 0 and not token.hidden:
            parts.append(opened.pop())
        elif token.type == CITATION:
            parts.append(cite(token.meta["at"]))
        elif token.nesting == 0:
            parts.append(_single(token))
    return parts


def _element(
    token: Token, address: Callable[[str], str], headings: _Headings
) -> tuple[Markup, Markup]:
    """The opening and closing tags of a token that others stand in."""
    name = token.type.removesuffix("_open")
    if name == "heading":
        tag = f"h{headings.level(int(token.tag[1]))}"
    elif name == "link":
        return _link(str(token.attrs.get("href", "")), address), Markup("</a>")
    elif name == "table":
        return (
            Markup('<div class="wide" role="region" aria-label="Table" tabindex="0"><table>'),
            Markup("</table></div>"),
        )
    elif name in ("th", "td"):
        scope = " scope=col" if name == "th" else ""
        aligned = ' class="n"' if "right" in str(token.attrs.get("style", "")) else ""
        return Markup(f"<{name}{scope}{aligned}>"), Markup(f"</{name}>")  # noqa: S704
    elif name == "ordered_list":
        start = int(token.attrs.get("start", 1))
        return Markup("<ol>" if start == 1 else f"<ol start={start}>"), Markup("</ol>")  # noqa: S704
    else:
        tag = _PLAIN[name]
    # Tags are this module's own, whatever the body says.
    return Markup(f"<{tag}>"), Markup(f"</{tag}>")  # noqa: S704


def _link(href: str, address: Callable[[str], str]) -> Markup:
    if ":" in href.partition("/")[0]:
        return Markup('<a href="{}" rel="noreferrer nofollow">').format(plain(href))
    return Markup('<a href="{}">').format(plain(address(href)))


def _single(token: Token) -> Markup:
    match token.type:
        case "text" | "text_special":
            return visible(token.content)
        case "softbreak":
            return Markup("\n")
        case "hardbreak":
            return Markup("<br>\n")
        case "code_inline":
            return Markup("<code>{}</code>").format(visible(token.content))
        case "code_block" | "fence":
            return Markup("<pre tabindex=0><code>{}</code></pre>\n").format(visible(token.content))
        case "hr":
            return Markup("<hr>\n")
    raise ValueError(f"markdown-it-py gave a token {token.type!r}, of which no HTML is made")
