"""How was a label scored? Counts by kind of text, the place among controls, and every judged text.

Judged texts are named by their places in lists that the run keeps: a pole's examples, and the
random documents held out. The page's script quotes a line of each, of the part that the judge saw;
what it needs for that is in the page's file (see :mod:`builder.pages.packed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from markupsafe import Markup

from builder.pages import charts
from builder.pages.example_view import ExampleView, anchor_of
from builder.pages.formats import fixed
from builder.pages.label_view import BY_COSINE, JUDGES_BY_RULE, Answer, PoleView, ScoreView
from builder.pages.spans import plain
from builder.pages.veils import Veiled
from builder.records import (
    POLES,
    RANKING,
    STRATA,
    Example,
    Judged,
    Label,
    LabelFailure,
    Pole,
    Score,
    Scorer,
    Stratum,
    Window,
)

#: Characters quoted of a judged text that is not among those of the page's files.
QUOTED = 84
#: Random texts quoted of each stratum that were rightly judged; the others are named only.
QUOTED_RIGHT = 6
#: What the texts of each stratum are, in the reader's words.
STRATUM_NAMES: dict[Stratum, str] = {
    "pole": "at this pole",
    "other": "at the other pole",
    "middle": "random, upper half",
    "random": "random, lower half",
}


@dataclass(frozen=True, slots=True)
class Count:
    """Of the ``n`` texts of one stratum with a verdict, how many the judge said the label fits.

    Where verdicts are cosines, none of which means yes, ``yes`` is None, and ``middle`` is their
    median; it is None otherwise.
    """

    yes: int | None
    n: int
    middle: float | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One scorer's results."""

    view: ScoreView
    counts: Mapping[Stratum, Count]

    @property
    def ranks(self) -> bool:
        """Whether the scorer gives an order of texts, and no F1."""
        return self.view.score.scorer in RANKING


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One of several answers: text or failure, and the F1 that decided, if one did."""

    text: str
    is_chosen: bool
    failed: bool
    f1: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PoleScores:
    """All that a direction's page says of the scores of the label that stands for a pole."""

    columns: tuple[Column, ...]
    chart: Markup
    #: The judged texts for the page's script: see :func:`_judged`.
    judged: dict[str, Any]
    candidates: tuple[CandidateRow, ...]

    @property
    def judges(self) -> tuple[tuple[str, str], ...]:
        """Who judged, each once, and what is to be said of a judge that is no language model."""
        scores = [column.view.score for column in self.columns]
        return tuple(dict.fromkeys((score.judge, _about_judge(score)) for score in scores))

    @property
    def ranks(self) -> bool:
        """Whether one of the scorers gives an order of texts, and no F1."""
        return any(column.ranks for column in self.columns)

    @property
    def sizes(self) -> frozenset[int]:
        """How many texts got a verdict, by any of the scorers."""
        scores = [column.view.score for column in self.columns]
        return frozenset(score.n_positive + score.n_negative for score in scores)

    @property
    def strata(self) -> tuple[Stratum, ...]:
        """The strata of which texts were judged."""
        return tuple(
            stratum
            for stratum in STRATA
            if any(column.counts[stratum].n for column in self.columns)
        )

    @property
    def n_judged(self) -> int:
        """How many texts were judged."""
        return sum(len(part[1]) + len(part[2]) for part in self.judged["parts"])


def pole_scores(
    view: PoleView, scores: Sequence[Score], texts: Texts, controls: Sequence[float]
) -> PoleScores | None:
    """The scores of a pole's label; None where it has none and no candidates.

    ``scores`` are those of the direction with judged texts and candidates, ``texts`` where judged
    ones are found, and ``controls`` what chance gives by the scorer that lists show.
    """
    if not view.answers or not view.text:
        return None
    answer = view.answers[0]
    own = [s for s in scores if s.pole == view.pole and s.labeler == answer.labeler]
    judged = {s.scorer: s.judged for s in own if s.split == "test" and s.text == view.text}
    candidates = _candidates(answer, own)
    if not answer.scores and not candidates:
        return None
    parts = [judged.get(item.score.scorer, ()) for item in answer.scores]
    columns = tuple(
        Column(item, _counts(part, item.score.scorer))
        for item, part in zip(answer.scores, parts, strict=True)
    )
    main = answer.score
    chart = charts.place_among(controls, main.score) if main else Markup("")
    return PoleScores(columns, chart, _judged(columns, parts, texts), candidates)


def _candidates(answer: Answer, scores: Sequence[Score]) -> tuple[CandidateRow, ...]:
    decided = {
        score.candidate: score
        for score in sorted(scores, key=lambda score: score.scorer, reverse=True)
        if score.split == "select"
    }
    return tuple(
        CandidateRow(item.reason, is_chosen=False, failed=True, f1=None)
        if isinstance(item, LabelFailure)
        else _candidate(item, decided.get(item.candidate))
        for item in answer.candidates
    )


def _candidate(label: Label, score: Score | None) -> CandidateRow:
    return CandidateRow(
        label.text or "no consistent pattern",
        is_chosen=label.is_chosen,
        failed=False,
        f1=score.f1 if score else None,
        interval=score.f1_interval if score else None,
    )


def _about_judge(score: Score) -> str:
    return BY_COSINE if score.scorer in RANKING else JUDGES_BY_RULE.get(score.judge, "")


def _counts(judged: Sequence[Judged], scorer: Scorer) -> dict[Stratum, Count]:
    found: dict[Stratum, Count] = {}
    for stratum in STRATA:
        verdicts = [j.verdict for j in judged if j.stratum == stratum and j.verdict is not None]
        if scorer in RANKING:
            found[stratum] = Count(None, len(verdicts), median(verdicts) if verdicts else None)
        else:
            found[stratum] = Count(sum(verdict >= 0.5 for verdict in verdicts), len(verdicts))
    return found


def _judged(
    columns: Sequence[Column], judged: Sequence[Sequence[Judged]], texts: Texts
) -> dict[str, Any]:
    """One row for each text, whichever scorers judged it, in the order of the lists.

    ``scorers``, and ``parts`` of [stratum, rows, rest]. A row is [text, marked tokens or 0, tokens
    seen or 0, a verdict for each scorer]: the text as :meth:`Texts.place` gives it, tokens seen as
    [first, number] where they are not the whole window, and verdicts as :func:`_verdict` writes
    them. The rest are documents of random texts that every scorer that judged them rightly said no
    to; cosines, which say neither yes nor no, are left aside.
    """
    ranking = tuple(column.ranks for column in columns)
    by_text: dict[tuple[int, int, int], list[Judged | None]] = {}
    for at, part in enumerate(judged):
        for item in part:
            key = (STRATA.index(item.stratum), item.place, item.doc_id)
            by_text.setdefault(key, [None] * len(judged))[at] = item
    rows: dict[Stratum, list[list[Any]]] = {stratum: [] for stratum in STRATA}
    rest: dict[Stratum, list[int]] = {stratum: [] for stratum in STRATA}
    quoted_right = dict.fromkeys(STRATA, 0)
    for key in sorted(by_text):
        items = [item for item in by_text[key] if item]
        stratum = items[0].stratum
        said = [item for item, ranks in zip(by_text[key], ranking, strict=True) if not ranks]
        asked = [item for item in said if item]
        if stratum in ("middle", "random") and asked and all(map(_is_right, asked)):
            quoted_right[stratum] += 1
            if quoted_right[stratum] > QUOTED_RIGHT:
                rest[stratum].append(items[0].doc_id)
                continue
        marked = next((item.marked for item in items if item.marked), ())
        verdicts = [
            _verdict(item, ranks=ranks) if item else None
            for item, ranks in zip(by_text[key], ranking, strict=True)
        ]
        rows[stratum].append([*texts.place(items[0], marked), *verdicts])
    return {
        "scorers": [column.view.score.scorer for column in columns],
        "parts": [[s, rows[s], rest[s]] for s in STRATA if rows[s] or rest[s]],
    }


def _is_right(item: Judged) -> bool:
    return item.verdict is not None and (item.verdict >= 0.5) == item.truth


def _verdict(item: Judged, *, ranks: bool) -> int | list[Any]:
    """0 for no and 1 for yes, 2 more if that is wrong; else [what was said, whether it is wrong].

    A cosine is never wrong by itself.
    """
    if item.verdict is None:
        return ["unparsed", 0]
    if ranks:
        return [fixed(item.verdict, 2), 0]
    yes, wrong = item.verdict >= 0.5, not _is_right(item)
    if item.verdict in (0.0, 1.0):
        return yes + 2 * wrong
    return [f"{'yes' if yes else 'no'} {item.verdict:.2f}", int(wrong)]


class Texts:
    """Where the texts that were judged at one pole of a direction stand in the page's files."""

    def __init__(
        self,
        pole: Pole,
        examples: Mapping[Pole, Sequence[Example]],
        shown: Sequence[ExampleView],
        random: Sequence[Window],
        held_out: int,
        veiled: Veiled = lambda _: False,
    ) -> None:
        """``examples`` are the joint lists by place, ``shown`` the rows of the page's own file,
        ``random`` the windows of the run's file, of which those from ``held_out`` on are held out.
        Nothing is quoted of texts whose source is ``veiled``.
        """
        self._veiled = veiled
        self._pole = pole
        self._examples = {(at, example.place): example for at in POLES for example in examples[at]}
        self._rows = {view.anchor: (at, view.example.window) for at, view in enumerate(shown)}
        self._random, self._held_out = random, held_out

    def place(self, item: Judged, marked: Sequence[int]) -> tuple[Any, Any, Any]:
        """(text, marked tokens, tokens seen) of a judged text, the last two 0 where there are none.

        The text is its row in the page's own file, or ~place in the run's file of random ones, or
        else [document, quoted text], the latter empty where the text is not known any more.
        """
        if item.stratum in ("pole", "other"):
            other: Pole = "min" if self._pole == "max" else "max"
            pole = self._pole if item.stratum == "pole" else other
            example = self._examples.get((pole, item.place))
            if example is None or not _is_of(item, example.window):
                return [item.doc_id, ""], 0, 0
            first = marked[0] if marked else max(0, example.peak - item.first)
            row, kept = self._rows.get(anchor_of(example), (0, None))
            if kept is not None:
                offset = kept.start - example.window.start
                if offset <= item.first + first < offset + len(kept.token_ends):
                    return row, *_seen(item, marked, offset, len(kept.token_ends))
            if self._veiled(plain(example.window.source)):
                return [item.doc_id, ""], 0, 0
            part = example.window.part(item.first, item.length)
            return [item.doc_id, quoted(part, first)], 0, 0
        place = self._held_out + item.place
        window = self._random[place] if self._held_out <= place < len(self._random) else None
        if window is None or not _is_of(item, window):
            return [item.doc_id, ""], 0, 0
        return ~place, *_seen(item, marked, 0, len(window.token_ends))


def _seen(item: Judged, marked: Sequence[int], offset: int, kept: int) -> tuple[Any, Any]:
    """Marked tokens by their place in what is kept of the window, and the part that was judged.

    The latter is 0 if it is all that is kept: ``kept`` tokens from ``offset`` on.
    """
    first, last = max(0, item.first - offset), min(kept, item.first - offset + item.length)
    tokens = [item.first + at - offset for at in marked]
    lit = [token for token in tokens if 0 <= token < kept]
    return lit or 0, 0 if (first, last) == (0, kept) else [first, last - first]


def _is_of(item: Judged, window: Window) -> bool:
    """Whether the judged text is a part of the window."""
    last = item.first + item.length
    return window.doc_id == item.doc_id and 0 <= item.first <= last <= len(window.token_ends)


def quoted(window: Window, token: int) -> str:
    """About QUOTED characters of a window around one of its tokens, on one line."""
    ends = window.token_ends
    start = int(ends[token - 1]) if 0 < token < len(ends) else 0
    low = max(0, start - QUOTED // 3)
    text = " ".join(window.text[low : low + QUOTED].split())
    after = "" if low + QUOTED >= len(window.text) else " …"
    return plain(("… " if low else "") + text + after)
