"""How was a label scored? Counts by kind of text, the place among controls, and every judged text.

Judged texts are named by their places in lists that the run keeps: a pole's examples, and the
random documents held out. The page quotes a line of each, of the part that the judge saw; the
examples it shows are linked as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from builder.pages import charts
from builder.pages.label_view import BY_COSINE, JUDGES_BY_RULE, Answer, PoleView, ScoreView
from builder.pages.spans import Pieces, brief, visible
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

#: Characters quoted of a judged text, and of one that the page shows anyway.
QUOTED, QUOTED_SHOWN = 84, 48
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
class Verdict:
    """What a scorer's judge said of a text: ``said`` in a word or two, and whether it was wrong.

    A cosine is never wrong by itself.
    """

    said: str
    wrong: bool


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """One judged text with a verdict for each column; None where that scorer did not judge it.

    ``anchor`` is its place on the page if it is among the examples shown.
    """

    html: Markup
    anchor: str
    verdicts: tuple[Verdict | None, ...]


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """The judged texts of one stratum: ``rows`` quoted, ``rest`` by number of the document alone.

    The rest are random texts that every scorer that judged them rightly said no to; cosines, which
    say neither yes nor no, are left aside.
    """

    rows: tuple[JudgedRow, ...]
    rest: tuple[int, ...] = ()


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
    parts: Mapping[Stratum, JudgedPart]
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
    def judged(self) -> int:
        """How many texts were judged."""
        return sum(len(part.rows) + len(part.rest) for part in self.parts.values())


def pole_scores(
    view: PoleView,
    scores: Sequence[Score],
    examples: Mapping[Pole, Sequence[Example]],
    held_out: Sequence[Window],
    anchors: Collection[str],
    controls: Sequence[float],
) -> PoleScores | None:
    """The scores of a pole's label; None where it has none and no candidates.

    ``scores`` are those of the direction with judged texts and candidates, ``examples`` the lists
    of both poles by place, ``anchors`` the examples that the page shows, and ``controls`` what
    chance gives by the scorer that lists show.
    """
    if not view.answers or not view.text:
        return None
    answer = view.answers[0]
    own = [s for s in scores if s.pole == view.pole and s.labeler == answer.labeler]
    judged = {s.scorer: s.judged for s in own if s.split == "test" and s.text == view.text}
    candidates = _candidates(answer, own)
    if not answer.scores and not candidates:
        return None
    texts = _Texts(view.pole, examples, held_out, anchors)
    parts = [judged.get(item.score.scorer, ()) for item in answer.scores]
    columns = tuple(
        Column(item, _counts(part, item.score.scorer))
        for item, part in zip(answer.scores, parts, strict=True)
    )
    ranking = tuple(column.ranks for column in columns)
    main = answer.score
    chart = charts.place_among(controls, main.score) if main else Markup("")
    return PoleScores(columns, chart, _parts(parts, ranking, texts), candidates)


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


def _parts(
    judged: Sequence[Sequence[Judged]], ranking: Sequence[bool], texts: _Texts
) -> dict[Stratum, JudgedPart]:
    """One row for each text, whichever scorers judged it, in the order of the lists.

    ``ranking`` tells of each scorer whether it gives an order only.
    """
    by_text: dict[tuple[int, int, int], list[Judged | None]] = {}
    for at, part in enumerate(judged):
        for item in part:
            key = (STRATA.index(item.stratum), item.place, item.doc_id)
            by_text.setdefault(key, [None] * len(judged))[at] = item
    rows: dict[Stratum, list[JudgedRow]] = {stratum: [] for stratum in STRATA}
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
        anchor, html = texts.quote(items[0], marked)
        verdicts = tuple(
            _verdict(item, ranks=ranks) if item else None
            for item, ranks in zip(by_text[key], ranking, strict=True)
        )
        rows[stratum].append(JudgedRow(html, anchor, verdicts))
    return {stratum: JudgedPart(tuple(rows[stratum]), tuple(rest[stratum])) for stratum in STRATA}


def _is_right(item: Judged) -> bool:
    return item.verdict is not None and (item.verdict >= 0.5) == item.truth


def _verdict(item: Judged, *, ranks: bool) -> Verdict:
    if item.verdict is None:
        return Verdict("unparsed", wrong=False)
    if ranks:
        return Verdict(f"{item.verdict:.2f}", wrong=False)
    yes = item.verdict >= 0.5
    said = "yes" if yes else "no"
    if item.verdict not in (0.0, 1.0):
        said += f" {item.verdict:.2f}"
    return Verdict(said, wrong=not _is_right(item))


class _Texts:
    """The texts that were judged at one pole of a direction."""

    def __init__(
        self,
        pole: Pole,
        examples: Mapping[Pole, Sequence[Example]],
        held_out: Sequence[Window],
        anchors: Collection[str],
    ) -> None:
        self._pole = pole
        self._examples = {(at, example.place): example for at in POLES for example in examples[at]}
        self._held_out = held_out
        self._anchors = anchors

    def quote(self, item: Judged, marked: Sequence[int]) -> tuple[str, Markup]:
        """The anchor of a judged text on the page, if it is there, and a line of the text."""
        if item.stratum in ("pole", "other"):
            other: Pole = "min" if self._pole == "max" else "max"
            pole = self._pole if item.stratum == "pole" else other
            example = self._examples.get((pole, item.place))
            if example is None or not _is_of(item, example.window):
                return "", Markup("document {}").format(item.doc_id)
            anchor = f"{pole}-{example.role}-{item.doc_id}"
            is_shown = anchor in self._anchors
            length = QUOTED_SHOWN if is_shown else QUOTED
            tokens = marked or (example.peak - item.first,)
            part = example.window.part(item.first, item.length)
            return anchor if is_shown else "", quoted(part, tokens, length, marks=bool(marked))
        window = self._held_out[item.place] if 0 <= item.place < len(self._held_out) else None
        if window is None or not _is_of(item, window):
            return "", Markup("document {}").format(item.doc_id)
        part = window.part(item.first, item.length)
        return "", quoted(part, marked or (0,), QUOTED, marks=bool(marked))


def _is_of(item: Judged, window: Window) -> bool:
    """Whether the judged text is a part of the window."""
    last = item.first + item.length
    return window.doc_id == item.doc_id and 0 <= item.first <= last <= len(window.token_ends)


def quoted(window: Window, tokens: Sequence[int], length: int, *, marks: bool) -> Markup:
    """About ``length`` characters of a window around the first of ``tokens``, on one line.

    With ``marks`` these tokens are marked, neighbours as one.
    """
    if not len(window.token_ends):
        return Markup("")
    pieces = Pieces.of(window)
    lit = set(tokens) if marks else set()
    first = min(tokens, default=0)
    centre = next((at for at, last in enumerate(pieces.lasts) if last >= first), 0)
    low = max(0, pieces.starts[centre] - length // 3)
    high = low + length
    runs: list[tuple[bool, str]] = []
    for start, end, one, last in zip(
        pieces.starts, pieces.ends, pieces.firsts, pieces.lasts, strict=True
    ):
        if start < low or start >= high:
            continue
        bright = any(token in lit for token in range(one, last + 1))
        text = pieces.text[start:end]
        if runs and runs[-1][0] == bright:
            runs[-1] = (bright, runs[-1][1] + text)
        else:
            runs.append((bright, text))
    parts = [
        Markup("<mark>{}</mark>").format(_shown(text)) if bright else _shown(text)
        for bright, text in runs
    ]
    before = Markup("… ") if low > 0 and runs else Markup("")
    after = Markup(" …") if high < len(pieces.text) else Markup("")
    return before + Markup("").join(parts) + after


def _shown(text: str) -> Markup:
    return visible(brief(" ".join(text.replace("\n", " ↵ ").split(" ")), 2 * QUOTED))
