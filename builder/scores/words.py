"""Does a text hold the words of a label? A judge that counts, for labels made by counting.

A label is read as a list of alternatives, separated by commas, the one that says most first, as the
keyword labeler writes it: words, phrases, quoted symbols, names of formats (see
:mod:`builder.labels.terms`). A term weighs as much as it tells, the log of how few random documents
hold it. A text has the verdict 0.5, the least yes, when it holds as much as the first alternative
alone, and 1 at twice that: the first is a yes however rare the others are, a rarer one is too, and
commoner ones are together. No language model reads anything; a label in a person's or a model's
words is judged by its single words, which understands none of them; the most telling word of its
first alternative, mostly the whole label, sets the bar.

In fuzzing only terms within REACH tokens of a marked one count, since what a direction responds to
is often a few tokens before its peak.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from builder.labels.evidence import Background
from builder.labels.reading import token_span
from builder.labels.terms import (
    CAPITALS,
    EMOJI,
    FORMAT_MARK,
    LINE_BREAK,
    LIST_ITEMS,
    LONG_STRINGS,
    NUMBERS,
    document_terms,
    formats,
    phrases,
    units,
)
from builder.records import Scorer
from builder.scores.judge import Text, Verdicts

JUDGE = "words"
#: Raised with every change that may change a verdict.
WORDS_VERSION = 2
#: Tokens from a marked one within which a term counts.
REACH = 8

_FORMATS = frozenset((LINE_BREAK, NUMBERS, EMOJI, CAPITALS, LIST_ITEMS, LONG_STRINGS))
_NAMES = re.compile(r"\s*(?:(?:token )?“([^”]*)”|([^,]+))")


class WordJudge:
    """Judges by the words of a label; ``background`` says how telling each is.

    ``as_phrases``: a name of several words is one term, as in keyword labels; else its words are.
    Deterministic; a text takes about half a millisecond the first time.
    """

    name = JUDGE

    def __init__(self, background: Background, *, as_phrases: bool) -> None:
        self._background = background
        self._as_phrases = as_phrases
        self._terms = lru_cache(maxsize=4096)(document_terms)

    def judge(self, label: str, texts: Sequence[Text], scorer: Scorer) -> Verdicts:
        """A verdict for every text."""
        del scorer  # what is marked says what is asked
        alternatives = [self.weights(terms) for terms in self._alternatives(label)]
        # A word of several alternatives counts once.
        weights = {term: tells for each in alternatives for term, tells in each.items()}
        bar = max(alternatives[0].values()) if alternatives else math.inf
        return Verdicts(tuple(self._verdict(weights, bar, text) for text in texts))

    def weights(self, terms: Iterable[str]) -> dict[str, float]:
        """What each term tells, in nats; a format stands beside the word for it."""
        total = self._background.n_documents
        found = {}
        for term in terms:
            spellings = (term, FORMAT_MARK + term)
            held = max(self._background.documents.get(each, 0) for each in spellings)
            found[term] = math.log((total + 1) / (held + 0.5))
        return found

    def _alternatives(self, label: str) -> list[list[str]]:
        """The terms of each alternative, in the order of the label; none is empty."""
        names = [(quoted or plain).strip() for quoted, plain in _NAMES.findall(label)]
        return [terms for name in names if (terms := self._terms_of(name))]

    def _terms_of(self, name: str) -> list[str]:
        own = units(name)
        whole = [term for term, first, last in phrases(own) if last - first == len(own) - 1]
        if _is_format(name):
            return [name]
        return whole if self._as_phrases and whole else [unit.term for unit in own]

    def _verdict(self, weights: Mapping[str, float], bar: float, text: Text) -> float:
        """``bar`` is the weight, in nats, that makes a yes."""
        present = self._terms(text.window.text)
        held = {
            term: spellings
            for term in weights
            if (spellings := {term, FORMAT_MARK + term} & present)
        }
        if held and text.marked is not None:
            near = _terms_near(text, text.marked)
            held = {term: spellings for term, spellings in held.items() if spellings & near}
        return min(1.0, sum(weights[term] for term in held) / (2 * bar))


def _is_format(name: str) -> bool:
    return FORMAT_MARK + name in _FORMATS or name.endswith((" script", "Chinese characters"))


def _terms_near(text: Text, marked: Sequence[int]) -> set[str]:
    """Terms that overlap a token within REACH of a marked one."""
    ends = text.window.token_ends.tolist()
    last = len(ends) - 1
    spans = [
        (token_span(ends, max(0, token - REACH))[0], token_span(ends, min(last, token + REACH))[1])
        for token in marked
    ]
    own = units(text.window.text)
    places = [(unit.term, unit.start, unit.end) for unit in own]
    places += [(term, own[first].start, own[end].end) for term, first, end in phrases(own)]
    places += list(formats(text.window.text, own))
    return {
        term
        for term, start, end in places
        if any(start < stop and end > begin for begin, stop in spans)
    }
