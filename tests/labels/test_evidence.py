"""What labels are tested on is not counted among the random documents they are made against."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from builder.labels.evidence import Background
from builder.labels.keywords import keyword_label
from tests.labels.making import background_of, evidence_of, insert, text_of, window_of

RANDOM = background_of(documents=60)


@pytest.mark.parametrize("left_out", [frozenset[int](), frozenset({3, 17, 59}), frozenset({900})])
def test_a_background_without_documents_is_that_of_the_others(left_out: frozenset[int]) -> None:
    wanted = Background.from_windows(w for w in RANDOM.windows if w.doc_id not in left_out)
    found = RANDOM.without(left_out)
    assert found.windows == wanted.windows
    for term in {*RANDOM.documents, *RANDOM.occurrences, "no such term"}:
        assert found.documents.get(term, 0) == wanted.documents.get(term, 0)
        assert found.occurrences.get(term, 0) == wanted.occurrences.get(term, 0)
    assert (found.n_documents, found.n_units) == (wanted.n_documents, wanted.n_units)
    assert found.mean_units == pytest.approx(wanted.mean_units)
    assert found.recurring == wanted.recurring


def test_a_background_without_any_document_counts_nothing() -> None:
    found = RANDOM.without({window.doc_id for window in RANDOM.windows})
    assert (found.n_documents, found.n_units, found.recurring) == (0, 0, 0)
    assert found.mean_units == 0.0
    assert not any(found.documents.values())


def test_a_keyword_label_does_not_depend_on_what_withheld_documents_say() -> None:
    """The reservoir may hold documents of a pole; of those held out for its label, too."""
    evidence = replace(
        evidence_of(lambda rng, text: insert(rng, text, "lighthouse"), planted=12),
        withheld=frozenset(range(8)),
    )
    rng = random.Random(5)
    texts = [text_of(rng) for _ in range(200)]
    say = [f"{text} lighthouse" for text in texts[:8]]
    both = [
        Background.from_windows(window_of(text, at) for at, text in enumerate([*first, *texts[8:]]))
        for first in (texts[:8], say)
    ]
    labels = [keyword_label(evidence, background) for background in both]
    assert labels[0] == labels[1]
    shown = replace(evidence, withheld=frozenset())
    assert keyword_label(shown, both[0]) != keyword_label(shown, both[1])
