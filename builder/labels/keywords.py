"""Which terms are over-represented where a direction peaks? The embedded labeler: it counts.

No language model reads anything here. Every example is one document, and what is counted is in how
many of them a term (see ``terms``) is, never how often, so that one document that repeats a word
cannot win. Three comparisons decide:

1. *Beyond chance.* Fisher's exact test, one-sided, of "in k of the n examples" against "in K of
   the N random documents". It is exact when examples are drawn like the random documents, which is
   what "no pattern" means. A term must be in at least MIN_DOCUMENTS examples (fewer may be one
   conversation, told twice), in at least MIN_SHARE of them, and pass at ALPHA divided by the number
   of terms that could pass (Bonferroni over the terms frequent enough to reach significance; that
   this suffices is Tarone 1990). So random examples get a label at most once in 1 / ALPHA poles.
   Longer examples hold more terms by their length alone: where they are s times as long as the
   random documents, these count as N / s documents of that length.
2. *Not at the other pole.* A term as common there is set aside, unless nothing else is left: then
   both poles name it, and the explanation shows the share at the other pole.
3. *Order.* Log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008) over
   document frequencies, each example weighted by how close to the peak it has the term (see
   ``reading``).

A direction may also respond to "the", which every text holds. So the unit at the peak itself is
tested against how often it occurs in random text (binomial test, same threshold), and is named
where more examples peak on it than hold any term: first if it is a word, last if it is a symbol.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builder.labels.evidence import Background, Evidence
from builder.labels.overuse import binomial_tail, fisher, log_odds
from builder.labels.reading import (
    Document,
    count_terms,
    read_documents,
    weigh_terms,
    written_forms,
)
from builder.labels.terms import FORMAT_MARK, is_symbol
from builder.labels.visible import one_line
from builder.records import KEYWORDS, Example, Label, LabelFailure

#: Raised with every change that may change a label.
KEYWORDS_VERSION = 3
#: A term must be in at least this many examples.
MIN_DOCUMENTS = 4
#: A term must be in at least this share of the examples.
MIN_SHARE = 0.2
#: At most this share of poles with random examples gets a label.
ALPHA = 0.01
#: Weight of the prior of the log-odds, in documents.
PRIOR = 10.0
#: A word in a larger share of random documents tells little: it adds nothing at the edge of a
#: phrase, and a label names it only where it has fewer than ENOUGH other terms.
COMMON = 0.1
ENOUGH = 3
#: Terms after the first are named only with at least this share of its log-odds.
WORTH = 0.4
MAX_TERMS, MAX_LABEL_WORDS, MAX_KEYWORDS, MAX_EXPLAINED = 5, 10, 12, 3


@dataclass(frozen=True, slots=True)
class Finding:
    """A term beyond chance: its units, and where it is.

    ``count`` examples hold it, ``random`` is its share of random documents (or, ``at_peak``, of
    random text), and ``other`` of the ``n_other`` examples of the other pole hold it; ``order``
    are its log-odds in standard deviations.
    """

    term: str
    parts: tuple[str, ...]
    count: int
    random: float
    other: int
    n_other: int
    order: float
    at_peak: bool = False


def keyword_label(evidence: Evidence, background: Background) -> Label | LabelFailure:
    """The ``keywords`` label of one pole: up to five terms, or None when none is beyond chance.

    Deterministic, whatever the order of the examples and however many copies are among them.
    A few milliseconds. A LabelFailure only when there are no examples.
    """
    if not evidence.examples:
        return LabelFailure(evidence.direction, evidence.pole, KEYWORDS, "no_examples")
    # What the label is tested on must not even be counted among the random documents.
    background = background.without(evidence.withheld)
    documents = read_documents(evidence.examples)
    terms = find_terms(documents, evidence.contrast, background)
    most = max((finding.count for finding in terms), default=0)
    peaks = [
        finding
        for finding in find_peaks(documents, evidence.contrast, background)
        if finding.count > most
    ]
    findings = peaks + terms
    forms = written_forms(documents, {part for finding in findings for part in finding.parts})
    chosen = _named_first(peaks, _distinct(terms, background))
    singles = [finding for finding in findings if len(finding.parts) == 1]
    return Label(
        direction=evidence.direction,
        pole=evidence.pole,
        labeler=KEYWORDS,
        text=_joined([_named(finding, forms) for finding in chosen]) or None,
        explanation=_explanation(chosen, forms, documents, background),
        keywords=tuple(_form(finding, forms) for finding in singles[:MAX_KEYWORDS]),
        example_docs=tuple(dict.fromkeys(item.window.doc_id for item in evidence.examples)),
    )


def find_terms(
    documents: Sequence[Document], contrast: Sequence[Example], background: Background
) -> list[Finding]:
    """Terms in more documents than chance explains, best first; empty when there are none."""
    n, total = len(documents), background.n_documents
    if not total:
        return []
    counts, parts = count_terms(documents, _least(n))
    threshold = ALPHA / max(1, background.recurring + len(counts))
    length = sum(len(document.units) for document in documents) / n
    stretch = max(1.0, length / background.mean_units) if background.mean_units else 1.0
    as_long = max(1, round(total / stretch))
    found = list(counts)
    shares = 1 - (1 - np.array([background.documents.get(t, 0) for t in found]) / total) ** stretch
    having = np.ceil(as_long * shares - 1e-9).astype(int)
    p_values = fisher([counts[term] for term in found], n, having, as_long)
    random = {
        term: in_random
        for term, in_random, p in zip(found, having.tolist(), p_values, strict=True)
        if p <= threshold
    }
    if not random:
        return []
    kept = {term: parts[term] for term in random}
    others = read_documents(contrast)
    _, weights = weigh_terms(documents, kept)
    counts_others, weights_others = weigh_terms(others, kept)
    above_others = fisher(
        [counts[term] for term in kept], n, [counts_others[term] for term in kept], len(others)
    )
    here_only, shared = [], []
    for (term, units_of_term), p in zip(kept.items(), above_others, strict=True):
        finding = Finding(
            term=term,
            parts=units_of_term,
            count=counts[term],
            random=background.documents.get(term, 0) / total,
            other=counts_others[term],
            n_other=len(others),
            order=log_odds(weights[term], n, random[term], as_long, PRIOR),
        )
        rarer = weights_others[term] / max(1, len(others)) < weights[term] / n / 2
        if rarer or p <= 0.1:
            here_only.append(finding)
        else:
            shared.append(finding)
    return sorted(here_only or shared, key=lambda finding: (-finding.order, finding.term))


def find_peaks(
    documents: Sequence[Document], contrast: Sequence[Example], background: Background
) -> list[Finding]:
    """Units at the peak more often than chance explains, best first; at most two."""
    n = len(documents)
    counts = Counter(document.peak_unit for document in documents if document.peak_unit)
    threshold = ALPHA / max(1, background.recurring + len(counts))
    rates = {
        term: (background.occurrences.get(term, 0) + 1) / (background.n_units + 1)
        for term, count in counts.items()
        if count >= _least(n)
    }
    passed = {
        term: rate
        for term, rate in rates.items()
        if background.n_units and binomial_tail(counts[term], n, rate) <= threshold
    }
    if not passed:
        return []
    others = read_documents(contrast)
    counts_others = Counter(document.peak_unit for document in others)
    findings = [
        Finding(
            term=term,
            parts=(term,),
            count=counts[term],
            random=rate,
            other=counts_others[term],
            n_other=len(others),
            order=log_odds(counts[term], n, rate * n, n, PRIOR),
            at_peak=True,
        )
        for term, rate in passed.items()
        if counts[term] / n > 2 * counts_others[term] / max(1, len(others))
    ]
    return sorted(findings, key=lambda finding: (-finding.order, finding.term))[:2]


def _least(n: int) -> int:
    return max(MIN_DOCUMENTS, math.ceil(MIN_SHARE * n))


def _distinct(findings: Sequence[Finding], background: Background) -> list[Finding]:
    """Findings to name: no two say the same, and none is much weaker than the first.

    Of a phrase and its parts, the phrase stays if it is in nearly all the examples its parts are in
    and begins and ends with words that tell something: findings themselves, or not common in any
    text. Else the parts stay.
    """
    total = max(1, background.n_documents)
    dropped: set[str] = set()
    by_parts = {finding.parts: finding for finding in findings}
    for phrase in sorted(findings, key=lambda finding: (-len(finding.parts), finding.term)):
        size = len(phrase.parts)
        inner = [
            by_parts[phrase.parts[first:last]]
            for first in range(size)
            for last in range(first + 1, size + 1)
            if last - first < size and phrase.parts[first:last] in by_parts
        ]
        if not inner:
            continue
        telling = all(
            (edge,) in by_parts or background.documents.get(edge, 0) / total <= COMMON
            for edge in (phrase.parts[0], phrase.parts[-1])
        )
        if telling and phrase.count >= 0.8 * max(finding.count for finding in inner):
            dropped.update(finding.term for finding in inner)
        else:
            dropped.add(phrase.term)
    chosen: list[Finding] = []
    for finding in findings:
        if finding.term in dropped or any(_alike(finding, other) for other in chosen):
            continue
        if len(chosen) == MAX_TERMS or (chosen and finding.order < WORTH * chosen[0].order):
            break
        chosen.append(finding)
    return chosen


def _named_first(peaks: Sequence[Finding], terms: Sequence[Finding]) -> list[Finding]:
    """The findings in the order in which a label names them, at most MAX_TERMS.

    What tells something comes first: words at the peak, and terms that are rare elsewhere. Common
    words and symbols fill up where that leaves fewer than ENOUGH; a symbol at the peak is named in
    any case, but last.
    """
    said = {finding.term for finding in peaks}
    terms = [finding for finding in terms if finding.term not in said]
    symbols = [finding for finding in terms if is_symbol(finding.term)]
    common = [finding for finding in terms if _is_common(finding)]
    named = [finding for finding in peaks if not is_symbol(finding.term)]
    named += [finding for finding in terms if finding not in symbols and finding not in common]
    last = [finding for finding in peaks if is_symbol(finding.term)]
    fill = (common + symbols)[: max(0, ENOUGH - len(named) - len(last))]
    return (named + fill)[: MAX_TERMS - len(last)] + last


def _is_common(finding: Finding) -> bool:
    """Whether a term is a word or phrase that many random documents hold, too."""
    if finding.term.startswith(FORMAT_MARK) or is_symbol(finding.term):
        return False
    return finding.random > COMMON


def _alike(one: Finding, other: Finding) -> bool:
    """Whether two terms share a word, or differ by an ending only."""
    if set(one.parts) & set(other.parts):
        return True
    short, long = sorted((one.term, other.term), key=len)
    return len(short) >= 4 and len(long) - len(short) <= 3 and long.startswith(short[:-1])


def _form(finding: Finding, forms: dict[str, str]) -> str:
    """The term as the examples write it; a format by its name."""
    if len(finding.parts) == 1:
        return forms.get(finding.term) or finding.term.removeprefix(FORMAT_MARK)
    glue = " " if " " in finding.term else ""
    return glue.join(forms.get(part, part) for part in finding.parts)


def _named(finding: Finding, forms: dict[str, str]) -> str:
    """The term as a label names it: symbols, and words that are common elsewhere too, in quotes."""
    form = _form(finding, forms)
    if finding.term.startswith(FORMAT_MARK):
        return form
    if finding.at_peak:
        return f"token “{form}”"
    return f"“{form}”" if is_symbol(finding.term) else form


def _joined(names: Sequence[str]) -> str:
    """As many names as fit into a label, joined by commas."""
    words, kept = 0, []
    for name in names:
        words += len(name.split())
        if words > MAX_LABEL_WORDS:
            break
        kept.append(name)
    return ", ".join(kept)


def _explanation(
    chosen: Sequence[Finding],
    forms: dict[str, str],
    documents: Sequence[Document],
    background: Background,
) -> str:
    """One sentence with the shares of the terms and the token at the peaks."""
    n = len(documents)
    total = background.n_documents
    if not chosen:
        return (
            f"By word counts, no word, symbol or format is more frequent in the {n} examples than "
            f"in {total} random documents, beyond chance."
        )
    shares = []
    for finding in chosen[:MAX_EXPLAINED]:
        if finding.at_peak:
            share = f"at the peak of {finding.count} of {n} examples"
            share += f", {_percent(finding.random)} of the words of random text"
        else:
            share = f"in {finding.count} of {n} examples"
            share += f", {_percent(finding.random)} of {total} random documents"
        if finding.n_other:
            share += f" and {finding.other} of {finding.n_other} of the other pole"
        shares.append(f"“{_form(finding, forms)}” is {share}")
    return f"By word counts, {'; '.join(shares)}{_peaks(documents)}."


def _percent(share: float) -> str:
    if not share:
        return "none"
    return "under 1%" if share < 0.01 else f"{share:.0%}"


def _peaks(documents: Sequence[Document]) -> str:
    tokens = Counter(one_line(document.peak_token.strip(), 40) for document in documents)
    del tokens[""]
    # Ties by the alphabet; what happens fewer than three times needs no words.
    token, count = min(tokens.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
    if count < 3:
        return ""
    return f"; the peak is most often on the token “{token}” ({count} of {len(documents)})"
