"""What do the examples of a pole say, and how close to the peak? Terms by document, weighted.

Every example is one document. Tokens of the chat template are blanked out before anything is read,
except in an example that peaks on one. A term's weight in a document is that of its best place:
FLOOR + (1 - FLOOR) x the larger of the token's share of the peak activation and
exp(-distance / REACH), distance in tokens from the peak. A place that is far off and inactive still
counts FLOOR, because the peak may come long after the words that cause it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builder.labels.terms import GAP, LONGEST_WORD, Unit, formats, phrases, units
from builder.labels.visible import one_line
from builder.records import ROLES, Example

#: Weight of a term far from the peak and inactive, relative to one at the peak.
FLOOR = 0.5
#: Tokens over which closeness to the peak falls to 1/e.
REACH = 8.0

_TEMPLATE = ROLES.index("template")


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One example as read: text with template tokens blanked, and its units.

    ``ends`` are the token ends (characters), ``strength`` the activation of each token towards the
    pole, ``peak_unit`` the term of the unit at the peak (empty
    when the peak is on none), ``peak_token`` the token there.
    """

    text: str
    units: tuple[Unit, ...]
    ends: list[int]
    strength: npt.NDArray[np.int16]
    peak: int
    peak_unit: str
    peak_token: str


def read_documents(examples: Iterable[Example]) -> list[Document]:
    """The examples as documents, each document and each text once, in an order of their own."""
    read: dict[str, Document] = {}
    seen: set[int] = set()
    for example in sorted(examples, key=lambda item: (item.window.doc_id, item.place)):
        if example.window.doc_id not in seen:
            seen.add(example.window.doc_id)
            document = _read(example)
            read.setdefault(document.text, document)
    return [read[text] for text in sorted(read)]


def _read(example: Example) -> Document:
    window, peak = example.window, example.peak
    ends: list[int] = window.token_ends.tolist()
    text = window.text
    if example.roles[peak] != _TEMPLATE:
        text = _without_template(text, ends, example.roles)
    found = units(text)
    start, end = token_span(ends, peak)
    unit = next((unit for unit in found if unit.start < end and unit.end > start), None)
    return Document(
        text=text,
        units=found,
        ends=ends,
        strength=example.activations if example.pole == "max" else -example.activations,
        peak=peak,
        peak_unit=unit.term if unit else "",
        peak_token=window.text[start:end],
    )


def token_span(ends: Sequence[int], token: int) -> tuple[int, int]:
    """Where a token is in the text; for a token with a part of a character, that character."""
    end = ends[token]
    while token and ends[token - 1] == end:
        token -= 1
    return (ends[token - 1] if token else 0), end


def _without_template(text: str, ends: Sequence[int], roles: npt.NDArray[np.uint8]) -> str:
    """The text with every template token blanked out, character for character."""
    if not (roles == _TEMPLATE).any():
        return text
    pieces, start = [], 0
    for end, role in zip(ends, roles.tolist(), strict=True):
        pieces.append(GAP * (end - start) if role == _TEMPLATE else text[start:end])
        start = end
    return "".join(pieces)


def _weights(strength: npt.NDArray[np.int16], peak: int) -> list[float]:
    """The weight of each token, from FLOOR to 1."""
    values = strength.astype(np.float64)
    # A pole may lie on the other side of zero; there, activations share nothing with the peak.
    share = np.clip(values / values[peak], 0.0, 1.0) if values[peak] > 0 else np.zeros(len(values))
    closeness = np.exp(-np.abs(np.arange(len(values)) - peak) / REACH)
    weights: list[float] = (FLOOR + (1 - FLOOR) * np.maximum(share, closeness)).tolist()
    return weights


def count_terms(
    documents: Sequence[Document], least: int
) -> tuple[Counter[str], dict[str, tuple[str, ...]]]:
    """In how many documents each term is, and its units; terms in ``least`` or more of them.

    A phrase is no more frequent than its units, so only units that are in are combined.
    """
    counts: Counter[str] = Counter()
    for document in documents:
        terms = {unit.term for unit in document.units}
        terms.update(term for term, _, _ in formats(document.text, document.units))
        counts.update(terms)
    frequent = {term for term, count in counts.items() if count >= least}
    parts: dict[str, tuple[str, ...]] = {term: (term,) for term in frequent}
    for document in documents:
        found = {term: (first, last) for term, first, last in phrases(document.units, frequent)}
        counts.update(found.keys())
        for term, (first, last) in found.items():
            if counts[term] == least:
                parts[term] = tuple(unit.term for unit in document.units[first : last + 1])
    return Counter({term: counts[term] for term in parts}), parts


def weigh_terms(
    documents: Sequence[Document], parts: Mapping[str, tuple[str, ...]]
) -> tuple[Counter[str], dict[str, float]]:
    """For the terms given with their units: in how many documents, and their weights summed."""
    counts: Counter[str] = Counter()
    weights = dict.fromkeys(parts, 0.0)
    combined = {unit for units_of in parts.values() if len(units_of) > 1 for unit in units_of}
    for document in documents:
        found = document.units
        spans = [(unit.term, unit.start, unit.end) for unit in found if unit.term in parts]
        spans += [span for span in formats(document.text, found) if span[0] in parts]
        spans += [
            (term, found[first].start, found[last].end)
            for term, first, last in phrases(found, combined)
            if term in parts
        ]
        if not spans:
            continue
        token_weights = _weights(document.strength, document.peak)
        best: dict[str, float] = {}
        for term, start, end in spans:
            first_token = bisect_right(document.ends, start)
            last_token = max(bisect_left(document.ends, end), bisect_right(document.ends, end) - 1)
            weight = max(token_weights[first_token : last_token + 1], default=FLOOR)
            best[term] = max(best.get(term, 0.0), weight)
        counts.update(best.keys())
        for term, weight in best.items():
            weights[term] += weight
    return counts, weights


def written_forms(documents: Iterable[Document], terms: Iterable[str]) -> dict[str, str]:
    """How each single-unit term is written most often; ties by the alphabet."""
    wanted = set(terms)
    seen: dict[str, Counter[str]] = {term: Counter() for term in wanted}
    for document in documents:
        for unit in document.units:
            if unit.term in wanted and unit.kind == "word":
                seen[unit.term][document.text[unit.start : unit.end]] += 1
    return {
        term: one_line(min(forms.items(), key=lambda item: (-item[1], item[0]))[0], LONGEST_WORD)
        for term, forms in seen.items()
        if forms
    }
