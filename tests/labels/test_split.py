from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from builder.labels.split import split_examples
from tests.labels.making import example_of


def test_every_second_place_is_held_out_and_the_most_extreme_is_explained() -> None:
    examples = [example_of("a b c", doc_id=100 + place, place=place) for place in range(5)]

    explained, held_out = split_examples(examples)

    assert [example.place for example in explained] == [0, 2, 4]
    assert [example.place for example in held_out] == [1, 3]


def test_one_example_goes_to_the_labeler_and_none_to_nobody() -> None:
    example = example_of("a b c")

    assert split_examples([example]) == ((example,), ())
    assert split_examples([]) == ((), ())


@given(st.lists(st.integers(0, 8), max_size=20), st.integers(0, 99))
def test_no_document_is_on_both_sides_and_none_is_lost(documents: list[int], seed: int) -> None:
    one = example_of("a b c")
    examples = [
        replace(one, place=place, window=replace(one.window, doc_id=document))
        for place, document in enumerate(documents)
    ]
    shuffled = random.Random(seed).sample(examples, len(examples))

    explained, held_out = split_examples(shuffled)

    assert (explained, held_out) == split_examples(examples)
    assert not {e.window.doc_id for e in explained} & {e.window.doc_id for e in held_out}
    assert sorted(e.place for e in (*explained, *held_out)) == list(range(len(documents)))
    for half in (explained, held_out):
        assert len({e.window.doc_id for e in half}) >= len(set(documents)) // 2
