"""What does the triage page read? One classic script per model, as search does: columns of values.

For each direction from the weights: what decides the order, what stands for its poles, and the few
strongest examples as plain text around their peak. Scripts put all of it into the page as text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from builder.pages.formats import ranged
from builder.pages.label_view import PoleView
from builder.pages.spans import Pieces, brief, plain
from builder.pages.views import DirectionView, RunView
from builder.records import ANY_ROLE, POLES, Example, Pole
from builder.store import RunStore

#: Orders of the triage page: the value of the choice, and how it is called.
ORDERS = (
    ("trigger", "trigger-like first"),
    ("score", "best score of a label first"),
    ("sigma", "largest singular value first"),
)
#: Examples of each pole.
EXAMPLES = 3
#: Characters of an example before and after its peak.
AROUND = 110
#: Directions whose examples are read at once.
_AT_ONCE = 64


def triage_script(run: RunView, store: RunStore, examples: int) -> str:
    """The script of a run's directions from the weights.

    ``examples`` is how many examples a direction's page lists at each pole: what says how
    trigger-like a pole is, as on the model's page.
    """
    items = run.own
    per_pole = [item.poles[pole] for item in items for pole in POLES]
    held: list[dict[Pole, list[Example]]] = list(_examples(items, store, examples))
    data = {
        "title": plain(run.title),
        "ids": _column(item.row.id for item in items),
        "names": _column(item.name for item in items),
        "hashes": _column(item.row.content_hash for item in items),
        "sigmas": [_rounded(item.row.sigma) for item in items],
        "labels": _column(brief(pole.text or "") for pole in per_pole),
        "states": _column("" if pole.text else pole.said for pole in per_pole),
        "f1": [pole.score.score.f1 if pole.score else None for pole in per_pole],
        "scores": _column(_score(pole) for pole in per_pole),
        "doubts": _column(pole.doubt for pole in per_pole),
        "triggers": [
            _trigger_like(item, pole, found[pole])
            for item, found in zip(items, held, strict=True)
            for pole in POLES
        ],
        "examples": [
            [_excerpt(example) for example in found[pole][:EXAMPLES]]
            for found in held
            for pole in POLES
        ],
    }
    return f"WA.triage({_literal(run.name)},{_literal(data)});\n"


def _examples(
    items: Sequence[DirectionView], store: RunStore, examples: int
) -> Iterator[dict[Pole, list[Example]]]:
    for first in range(0, len(items), _AT_ONCE):
        ids = [item.row.id for item in items[first : first + _AT_ONCE]]
        read = store.examples_of(ids, role=ANY_ROLE)
        for name in ids:
            yield {
                pole: [e for e in read[name] if e.pole == pole and e.place < examples]
                for pole in POLES
            }


def _trigger_like(item: DirectionView, pole: Pole, examples: Sequence[Example]) -> float | None:
    """Distance of the pole's tail times the share of examples that peak on one token."""
    tail = item.tail_at(pole)
    if tail is None or not examples:
        return None
    tokens = Counter(
        Pieces.text_at(example.window, example.peak).strip().casefold() for example in examples
    )
    return _rounded(tail.distance * max(tokens.values()) / len(examples))


def _excerpt(example: Example) -> tuple[str, str, str, float, str, int]:
    """Text before the peak, the peak, text after it, value, source and document."""
    pieces = Pieces.of(example.window)
    text = pieces.text
    peak = Pieces.text_at(example.window, example.peak)
    at = next((n for n, last in enumerate(pieces.lasts) if last >= example.peak), 0)
    start = pieces.starts[at] if pieces.starts else 0
    end = start + len(peak)
    before = text[max(0, start - AROUND) : start]
    after = text[end : end + AROUND]
    return (
        ("…" if start > AROUND or example.window.start else "") + _line(before),
        _line(brief(peak)),
        _line(after) + ("…" if end + AROUND < len(text) else ""),
        round(example.value, 3),
        plain(example.window.source),
        example.window.doc_id,
    )


def _line(text: str) -> str:
    return plain(text.replace("\n", " ↵ "))


def _score(pole: PoleView) -> str:
    score = pole.score.score if pole.score else None
    return f"F1 {ranged(score.f1, score.f1_interval)}" if score else ""


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _column(texts: Iterable[str]) -> str:
    return "\n".join(" ".join(plain(text).split()) for text in texts)


def _literal(value: object) -> str:
    """JSON that is also a JavaScript literal and cannot end a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
