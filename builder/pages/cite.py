"""How is a site, or one direction of it, cited or quoted? CITATION.cff, BibTeX, Markdown.

Labels and titles are hostile here, too: each form has its own characters that mean something, and
all are escaped. Hidden characters are named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from builder import __version__
from builder.pages.direction_view import DirectionPage
from builder.pages.formats import fixed, name_alone, ranged, short
from builder.pages.label_view import PoleView
from builder.pages.spans import brief, plain
from builder.pages.views import DirectionView, RunView
from builder.records import POLES

_TEX = {
    "\\": r"\textbackslash{}",
    # Not \{, which BibTeX would count as a brace that is open.
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "$&#%_"},
}
_MARKED = re.compile(r"[\\`*_{}\[\]<>()#!|~&:$^+=-]")


def citation_cff(runs: Sequence[RunView], title: str, authors: Sequence[str], url: str) -> bytes:
    """The site in the Citation File Format 1.2.0, with its models as references.

    ``authors`` must not be empty: the format wants one.
    """
    references: list[dict[str, Any]] = []
    for run in runs:
        for model, revision in ((run.tuned, run.tuned_revision), (run.base, run.base_revision)):
            if not model:
                continue
            owner, slash, _ = model.partition("/")
            known = slash and name_alone(model) == model
            reference: dict[str, Any] = {
                "type": "generic",
                "title": plain(name_alone(model)),
                "authors": [{"name": plain(owner) if known else "unknown"}],
            }
            if revision:
                reference["commit"] = plain(revision)
            if reference not in references:
                references.append(reference)
    found: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use this atlas, please cite it, and the models that it is of.",
        "type": "dataset",
        "title": plain(title) or "weightatlas",
        "abstract": f"What fine-tuning wrote into the weights of {len(runs)} models, direction by "
        f"direction. Made with weightatlas {__version__}.",
        "authors": [{"name": plain(author)} for author in authors],
    }
    if url:
        found["url"] = url
    if references:
        found["references"] = references
    text: str = yaml.safe_dump(found, sort_keys=False, allow_unicode=False, width=1000)
    return text.encode("ascii")


def bibtex(run: RunView, item: DirectionView, url: str, authors: Sequence[str] = ()) -> str:
    """The BibTeX entry of a direction; ``url`` is the address of the site's top, or empty."""
    said = " / ".join(item.poles[pole].said for pole in POLES)
    tuned = name_alone(run.tuned) if run.tuned else run.title
    base = f", base {name_alone(run.base)}" if run.base else ""
    fields = {
        "title": f"{{{_tex(f'{run.title}, {item.row.id}: {said}')}}}",
        "author": " and ".join(f"{{{_tex(author)}}}" for author in authors),
        "howpublished": _tex(f"weightatlas {__version__}"),
        "note": _tex(f"Tuned {tuned}{base}; content hash {item.row.content_hash}"),
        "url": f"{url}{item.page}" if url else "",
    }
    key = re.sub(r"[^a-z0-9]+", "-", f"{run.name}-{item.name}").strip("-")
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", ",\n".join(lines), "}"]) + "\n"


def markdown(
    run: RunView, item: DirectionView, page: DirectionPage | None = None, url: str = ""
) -> str:
    """A direction as Markdown, to be put into a report: facts, and what each pole is said to be.

    With ``page``, also the commonest peak token of each pole's examples; with ``url``, the address
    of the site's top, links to the page.
    """
    name = _md(f"{run.title}, {item.row.id}")
    facts = [
        f"rank {item.row.rank}",
        f"singular value {short(item.row.sigma)}",
        f"content hash {item.row.content_hash}",
    ]
    if item.tail:
        facts.append(f"tail {fixed(item.tail.distance, 1)} standard deviations ({item.tail.pole})")
    lines = [f"### {f'[{name}]({url}{item.page})' if url else name}", "", _md("; ".join(facts)), ""]
    for pole in POLES:
        lines.append(f"- **{pole}:** {_pole(item.poles[pole])}")
        stats = page.peaks[pole] if page else None
        if stats:
            share = f"{stats.share:.0%} of {stats.n} examples"
            lines.append(f"  - commonest peak: “{_md(brief(stats.token))}” ({share})")
    return "\n".join(lines) + "\n"


def _pole(view: PoleView) -> str:
    said = _md(view.said)
    if view.label is None or not view.text:
        return said
    parts = [f"by {view.label.labeler}"]
    if view.score:
        score = view.score.score
        parts.append(f"{score.scorer} F1 {ranged(score.f1, score.f1_interval)}")
    if view.doubt:
        parts.append(view.doubt)
    return f"“{said}” {_md('(' + ', '.join(parts) + ')')}"


def _tex(text: str) -> str:
    line = " ".join(plain(text).split())
    return "".join(_TEX.get(character, character) for character in line)


def _md(text: str) -> str:
    """Text that stays text within a line of Markdown, no link and no mention of anybody either."""
    line = " ".join(plain(text).split())
    return _MARKED.sub(r"\\\g<0>", line).replace("@", "&#64;").replace("www.", r"www\.")
