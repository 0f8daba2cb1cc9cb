"""What does the search of the site read? One classic script per model that hands over columns.

Scripts work from disk, where nothing may be fetched. Columns are texts joined by line breaks: half
the size of objects and quick to read. Hidden characters are named, so that a script file holds
none, and what would end the script element or the line is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from builder.pages.formats import fixed
from builder.pages.label_view import PoleView
from builder.pages.spans import brief, plain
from builder.pages.views import DirectionView, RunView
from builder.records import POLES

#: Tokens of the logit lens that search may use, per pole.
LENS_TOKENS = 8


def search_script(run: RunView, alike: Sequence[Sequence[int]]) -> str:
    """The script of a run's rows: two per direction, the max pole first.

    ``alike`` are for each row the places of the rows whose labels are like its own.
    """
    items = run.directions
    poles = [item.poles[pole] for item in items for pole in POLES]
    data = {
        "title": plain(run.title),
        "ids": _column(item.row.id for item in items),
        "names": _column(item.name for item in items),
        "layers": [item.row.hookpoint.layer for item in items],
        "writers": _column(item.row.hookpoint.writer for item in items),
        "kinds": _column(item.row.kind for item in items),
        "sigmas": [_sigma(item) for item in items],
        "labels": _column(brief(pole.text or "") for pole in poles),
        "states": _column("" if pole.text else pole.said for pole in poles),
        "scores": [_score(pole) for pole in poles],
        "intervals": _column(_interval(pole) for pole in poles),
        "doubts": _column(pole.doubt for pole in poles),
        "alike": _column(" ".join(map(str, places)) for places in alike),
        "keywords": _column(_keywords(pole) for pole in poles),
        "tokens": _column(
            " ".join(token.strip() for token, _ in lens[:LENS_TOKENS])
            for item in items
            for lens in (item.row.promoted, item.row.suppressed)
        ),
    }
    return f"WA.add({_literal(run.name)},{_literal(data)});\n"


def _sigma(item: DirectionView) -> float | None:
    """The singular value that results are ordered by: of a weight change, not of base weights."""
    sigma = item.row.sigma
    return None if sigma is None or item.control == "base" else float(f"{sigma:.4g}")


def _score(pole: PoleView) -> float | None:
    f1 = pole.score.score.f1 if pole.score else None
    return None if f1 is None else round(f1, 2)


def _interval(pole: PoleView) -> str:
    interval = pole.score.score.f1_interval if pole.score else None
    return "–".join(fixed(end, 2) for end in interval) if interval else ""


def _keywords(pole: PoleView) -> str:
    """The label's keywords that its text, as search shows it, does not hold already."""
    if pole.label is None:
        return ""
    text = brief(pole.label.text or "").casefold()
    return " ".join(word for word in pole.label.keywords if word.casefold() not in text)


def _column(texts: Iterable[str]) -> str:
    return "\n".join(" ".join(plain(text).split()) for text in texts)


def _literal(value: object) -> str:
    """JSON that is also a JavaScript literal and cannot end a script element.

    The line separators U+2028 and U+2029 never come here: :func:`plain` has named them.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
