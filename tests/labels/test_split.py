from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.labels.split import split_examples
from builder.records import Example
from tests.labels.making import example_of


def _examples(texts: Sequence[str]) -> list[Example]:
    return [example_of(text, doc_id=100 + at, place=at) for at, text in enumerate(texts)]


def _held_out(texts: Sequence[str]) -> set[str]:
    return {example.window.text for example in split_examples(_examples(texts))[1]}


TEXTS = [f"a text that says {number}" for number in range(21)]


def test_half_is_held_out_whatever_the_ranks_and_comes_by_place() -> None:
    explained, held_out = split_examples(_examples(TEXTS))
    assert (len(explained), len(held_out)) == (11, 10)
    for half in (explained, held_out):
        assert [e.place for e in half] == sorted(e.place for e in half)
    assert _held_out(random.Random(0).sample(TEXTS, len(TEXTS))) == _held_out(TEXTS)


def test_either_half_holds_texts_of_all_ranks() -> None:
    ranks = [
        example.place
        for run in range(200)
        for example in split_examples(_examples([f"{run} {text}" for text in TEXTS]))[1]
    ]
    assert abs(sum(ranks) / len(ranks) - 10) < 0.5
    assert {0, 20} <= set(ranks)


@pytest.mark.parametrize("at", range(21))
def test_a_text_that_goes_or_is_another_changes_the_side_of_one_other_at_most(at: int) -> None:
    before, rest = _held_out(TEXTS), {*TEXTS} - {TEXTS[at]}
    changed = [*TEXTS[:at], f"{TEXTS[at]} indeed", *TEXTS[at + 1 :]]
    for after in (_held_out(changed), _held_out([*TEXTS[:at], *TEXTS[at + 1 :]])):
        assert len((before ^ after) & rest) <= 1


def test_one_example_goes_to_the_labeler_and_none_to_nobody() -> None:
    example = example_of("a b c")

    assert split_examples([example]) == ((example,), ())
    assert split_examples([]) == ((), ())


@given(st.lists(st.integers(0, 8), max_size=20), st.integers(0, 99))
def test_no_document_is_on_both_sides_and_none_is_lost(documents: list[int], seed: int) -> None:
    examples = [
        example_of(f"text of {document}", doc_id=document, place=place)
        for place, document in enumerate(documents)
    ]
    shuffled = random.Random(seed).sample(examples, len(examples))

    explained, held_out = split_examples(shuffled)

    assert (explained, held_out) == split_examples(examples)
    assert not {e.window.doc_id for e in explained} & {e.window.doc_id for e in held_out}
    assert sorted(e.place for e in (*explained, *held_out)) == list(range(len(documents)))
    for half in (explained, held_out):
        assert len({e.window.doc_id for e in half}) >= len(set(documents)) // 2


@given(st.lists(st.integers(0, 6), max_size=20))
def test_a_text_that_documents_share_is_on_one_side(texts: list[int]) -> None:
    explained, held_out = split_examples(_examples([f"footer {text}" for text in texts]))

    assert not {e.window.text for e in explained} & {e.window.text for e in held_out}
    assert len({e.window.text for e in held_out}) == len(set(texts)) // 2
    assert len(explained) + len(held_out) == len(texts)
