"""What does the search of the site read? Classic scripts that hand over the columns of a model.

Scripts work from disk, where nothing may be fetched. Columns are texts joined by line breaks: half
the size of objects and quick to read. A model with many directions has several scripts, so that
results come before all are there. Hidden characters are named, so that a script file holds none,
and what would end the script element or the line is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from builder.pages import links
from builder.pages.formats import fixed
from builder.pages.label_view import PoleView
from builder.pages.layout import PER_SHARD
from builder.pages.peaks_view import Peaking
from builder.pages.spans import brief, plain
from builder.pages.views import DirectionView, RunView
from builder.records import CONTROLS, POLES

#: Tokens of the logit lens that search may use, per pole.
LENS_TOKENS = 8
#: Directions of one script: 12,000 poles, some 2 MB.
PER_SCRIPT = 6_000
#: What directions that are no controls are called among the kinds.
FROM_WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class SearchModel:
    """A model as pages with search list it: the scripts that hold its rows, and those by token."""

    name: str
    title: str
    scripts: tuple[str, ...]
    token_scripts: tuple[str, ...]


def search_page(runs: Sequence[RunView]) -> dict[str, Any]:
    """What the template of the search page needs: the models and the values of its facets."""
    items = [item for run in runs for item in run.directions]
    kinds = {kind: None for item in items if (kind := _kind(item)) != FROM_WEIGHTS}
    known = [kind for kind in CONTROLS if kind in kinds]
    writers = dict.fromkeys(_line(i.row.hookpoint.writer) for i in items if not i.is_control)
    return {
        "models": [
            SearchModel(
                run.name,
                run.title,
                tuple(links.search_script(run.name, part) for part, _ in parts(run)),
                tuple(links.token_script(run.name, part) for part, _ in parts(run)),
            )
            for run in runs
        ],
        "writers": list(writers),
        "kinds": known + [kind for kind in kinds if kind not in known],
        "from_weights": FROM_WEIGHTS,
    }


def parts(run: RunView) -> Iterator[tuple[int, range]]:
    """The scripts of a run, counted from 1, and the directions that each holds; at least one."""
    for part, first in enumerate(range(0, max(1, len(run.directions)), PER_SCRIPT), 1):
        yield part, range(first, min(first + PER_SCRIPT, len(run.directions)))


def search_scripts(
    run: RunView, alike: Sequence[Sequence[int]], peaking: Peaking
) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the scripts with a run's rows: two per direction, the max pole first.

    ``alike`` are for each row the numbers of the rows whose labels are like its own, over all of
    the run's; ``peaking`` says what its poles peak on.
    """
    for part, held in parts(run):
        data = _columns(run, held, alike, peaking)
        script = f"WA.add({literal(run.name)},{literal(data)});\n"
        yield links.search_script(run.name, part), script.encode("utf-8")


def _columns(
    run: RunView, held: range, alike: Sequence[Sequence[int]], peaking: Peaking
) -> dict[str, Any]:
    items = run.directions[held.start : held.stop]
    poles = [item.poles[pole] for item in items for pole in POLES]
    peaks = [peaking.get((item.row.id, pole)) for item in items for pole in POLES]
    return {
        "title": plain(run.title),
        "first": held.start,
        "shard": PER_SHARD if run.is_sharded else 0,
        "ids": column(item.row.id for item in items),
        "names": column(item.name for item in items),
        "layers": [item.row.hookpoint.layer for item in items],
        **_coded("writers", [_line(item.row.hookpoint.writer) for item in items]),
        **_coded("kinds", [_kind(item) for item in items]),
        "sigmas": [_sigma(item) for item in items],
        "labels": column(brief(pole.text or "") for pole in poles),
        **_coded("states", ["" if pole.text else _line(pole.said) for pole in poles]),
        "scores": [_score(pole) for pole in poles],
        "intervals": column(_interval(pole) for pole in poles),
        **_coded("doubts", [_line(pole.doubt) for pole in poles]),
        "alike": column(
            " ".join(map(str, places)) for places in alike[2 * held.start : 2 * held.stop]
        ),
        "keywords": column(_keywords(pole) for pole in poles),
        "peaks": column(brief(found.tokens[0].token) if found else "" for found in peaks),
        "peaking": [found.tokens[0].n if found else 0 for found in peaks],
        "examples": [found.n if found else 0 for found in peaks],
        "tokens": column(
            " ".join(token.strip() for token, _ in lens[:LENS_TOKENS])
            for item in items
            for lens in (item.row.promoted, item.row.suppressed)
        ),
    }


def _coded(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """A column of few different texts: these in order, and for each row which of them it has."""
    codes = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    return {name: list(codes), f"{name}_of": [codes[text] for text in texts]}


def _kind(item: DirectionView) -> str:
    return _line(item.control) if item.is_control else FROM_WEIGHTS


def _sigma(item: DirectionView) -> float | None:
    """The singular value that results are ordered by: of a weight change, not of base weights."""
    sigma = item.row.sigma
    return None if sigma is None or item.control == "base" else float(f"{sigma:.4g}")


def _score(pole: PoleView) -> int | None:
    """F1 in hundredths, as it is shown: a bound that reads the same then holds."""
    f1 = pole.score.score.f1 if pole.score else None
    return None if f1 is None else int(fixed(f1, 2).replace(".", ""))


def _interval(pole: PoleView) -> str:
    interval = pole.score.score.f1_interval if pole.score else None
    return " ".join(fixed(end, 2) for end in interval) if interval else ""


def _keywords(pole: PoleView) -> str:
    """The label's keywords that its text, as search shows it, does not hold already."""
    if pole.label is None:
        return ""
    text = brief(pole.label.text or "").casefold()
    return " ".join(word for word in pole.label.keywords if word.casefold() not in text)


def column(texts: Iterable[str]) -> str:
    """Texts as the lines of one, hidden characters named."""
    return "\n".join(map(_line, texts))


def _line(text: str) -> str:
    return " ".join(plain(text).split())


def literal(value: object) -> str:
    """JSON that is also a JavaScript literal and cannot end a script element.

    The line separators U+2028 and U+2029 never come here: :func:`plain` has named them.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
