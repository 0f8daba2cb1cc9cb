"""Which texts are judged follows from the pole, is nothing a labeler saw, and stands for all."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from builder.labels.split import split_examples
from builder.records import ACTIVATION_SCALE, STRATA
from builder.scores.fuzzing import fuzzing_texts
from builder.scores.items import Pool, make_pool
from tests.scores.making import (
    HASH,
    ID,
    examples_of,
    peaks_of,
    pool_of,
    sample_of,
    windows_of,
)

ALL = dict.fromkeys(STRATA, 10**6)


def _docs(pool: Pool) -> dict[str, set[int]]:
    return {s: {item.window.doc_id for item in pool.items[s]} for s in STRATA}


def _all(docs: dict[str, set[int]]) -> set[int]:
    return {doc for found in docs.values() for doc in found}


def test_positives_are_the_half_of_the_examples_that_labelers_never_see() -> None:
    pool = pool_of()
    _, held_out = split_examples(examples_of("max", 20, value=0.5, first_doc=10_000, word="river"))
    assert _docs(pool)["pole"] == {example.window.doc_id for example in held_out}
    assert all(item.marks for item in pool.items["pole"])
    assert [item.truth for item in pool.take(ALL)] == [True] * 10 + [False] * (
        len(pool.take(ALL)) - 10
    )


def test_strata_follow_from_the_median_and_half_way_to_the_last_example() -> None:
    pool = pool_of()
    docs = _docs(pool)
    reach = {50_000 + at: value for at, value in enumerate(np.linspace(0, 0.3, 60))}
    reach |= {50_000 + at: 0.42 for at in range(55, 60)}
    everything = [*np.linspace(0, 0.3, 40), *reach.values()]
    middle, bar = float(np.median(everything)), 0.5 * (1 - 0.1 * 19 / 20)
    low = (middle + bar) / 2
    assert docs["random"] == {doc for doc, value in reach.items() if value <= middle}
    assert docs["middle"] == {doc for doc, value in reach.items() if middle < value <= low}
    between = {doc for doc, value in reach.items() if value > low}
    assert between
    assert not between & _all(docs)
    assert pool.between == pytest.approx(
        (1 - 40 / 2000) * sum(value > low for value in everything) / 100
    )


def test_strata_and_what_is_between_make_up_all_documents() -> None:
    pool = pool_of()
    assert sum(pool.shares.values()) + pool.between == pytest.approx(1.0)
    assert pool.shares["pole"] == pytest.approx(20 / 2000)
    assert pool.base_rate == pytest.approx(0.01 / (1 - pool.between))


def test_repeats_count_as_positive_documents() -> None:
    examples = examples_of("max", 20, value=0.5, first_doc=10_000, word="river")
    examples[3] = dataclasses.replace(examples[3], repeats=7)
    windows = windows_of(4, first_doc=50_000)
    peaks = (peaks_of(0.1, 0.1), peaks_of(0.0, 0.1, 0.1, 0.2))
    pool = make_pool(ID, "max", HASH, examples, sample_of(windows, reservoir=2), peaks)
    assert pool.shares["pole"] == pytest.approx(27 / 2000)


def test_texts_do_not_depend_on_the_order_of_the_examples() -> None:
    assert pool_of().take(ALL, 0, 2)[0].window.doc_id == (
        pool_of(order=lambda found: found[::-1]).take(ALL, 0, 2)[0].window.doc_id
    )
    for part in (0, 1):
        one = pool_of().take({"pole": 3, "random": 5}, part, 2)
        other = pool_of(order=lambda found: found[::-1]).take({"pole": 3, "random": 5}, part, 2)
        assert [item.window.doc_id for item in one] == [item.window.doc_id for item in other]
        assert Counter(item.stratum for item in one) == {"pole": 3, "random": 5}


def test_parts_share_no_document() -> None:
    pool = pool_of()
    parts = [{item.window.doc_id for item in pool.take(ALL, part, 2)} for part in (0, 1)]
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == len(pool.take(ALL))


def test_a_document_that_some_labeler_saw_at_the_other_pole_is_never_taken() -> None:
    own = examples_of("max", 20, value=0.5, first_doc=10_000, word="river")
    other = examples_of("min", 20, value=0.4, first_doc=20_000, word="boat")
    # Held out at the pole, but explained at the other one.
    held_out = split_examples(own)[1][0].window.doc_id
    place = split_examples(other)[0][0].place
    both = dataclasses.replace(other[place].window, doc_id=held_out)
    other[place] = dataclasses.replace(other[place], window=both)
    peaks = (peaks_of(0.1, 0.1), peaks_of(0.1, 0.1, 0.2))
    sample = sample_of(windows_of(3, first_doc=50_000), reservoir=2)
    docs = _docs(make_pool(ID, "max", HASH, [*own, *other], sample, peaks))
    assert held_out not in _all(docs)
    assert len(docs["pole"]) == 9


def test_a_text_that_a_labeler_saw_at_either_pole_is_not_judged() -> None:
    own = examples_of("max", 20, value=0.5, first_doc=10_000, word="river")
    other = examples_of("min", 20, value=0.4, first_doc=20_000, word="boat")
    (_, held_out), (shown, _) = split_examples(own), split_examples(other)
    # The same footer under a document held out at this pole and one that was contrast for it.
    footer = shown[0].window.text
    both = dataclasses.replace(held_out[0].window, text=footer)
    changed = [
        dataclasses.replace(e, window=both) if e.window.doc_id == both.doc_id else e for e in own
    ]
    windows = windows_of(8, first_doc=50_000)
    peaks = (peaks_of(0.1, 0.1), peaks_of(*[0.1] * 8))
    pool = make_pool(ID, "max", HASH, [*changed, *other], sample_of(windows, reservoir=2), peaks)
    seen = {
        example.window.text
        for half in (split_examples(changed)[0], split_examples(other)[0])
        for example in half
    }
    assert footer in seen
    judged = {item.window.text for items in pool.items.values() for item in items}
    assert len(judged) >= 10
    assert not any(part in text for text in seen for part in judged)


def test_what_a_labeler_saw_is_not_judged_by_a_near_duplicate() -> None:
    own = examples_of("max", 20, value=0.5, first_doc=10_000, word="river")
    other = examples_of("min", 20, value=0.4, first_doc=20_000, word="boat")
    (explained, held_out), (shown, hidden) = split_examples(own), split_examples(other)
    seen, kept = explained[0].window.doc_id, held_out[0].window.doc_id
    also, contrast = hidden[0].window.doc_id, shown[0].window.doc_id
    windows = windows_of(8, first_doc=50_000)
    pairs = [{seen, 50_000}, {kept, contrast}, {also, explained[1].window.doc_id}]
    alike = {doc: frozenset(pair) for pair in pairs for doc in pair}
    peaks = (peaks_of(0.1, 0.1), peaks_of(*[0.1] * 8))
    sample = dataclasses.replace(sample_of(windows, reservoir=2), alike=alike)
    pool = make_pool(ID, "max", HASH, [*own, *other], sample, peaks)
    judged = _all(_docs(pool))
    # What resembles a held-out random document is in neither half, so others may be held out.
    assert not judged & {seen, 50_000}
    assert not judged & {kept, contrast}
    assert not judged & {also}
    assert len(judged & {window.doc_id for window in windows}) == 7
    assert sum(pool.shares.values()) + pool.between == pytest.approx(1.0)


def test_texts_of_the_other_pole_that_reach_far_to_this_one_are_no_negatives() -> None:
    own = examples_of("max", 20, value=0.5, first_doc=10_000, word="river")
    other = examples_of("min", 20, value=0.4, first_doc=20_000, word="boat")
    place = split_examples(other)[1][0].place
    reaching = other[place].activations.copy()
    reaching[0] = round(0.45 * ACTIVATION_SCALE)
    other[place] = dataclasses.replace(other[place], activations=reaching)
    peaks = (peaks_of(0.1, 0.1), peaks_of(0.1, 0.1, 0.2))
    sample = sample_of(windows_of(3, first_doc=50_000), reservoir=2)
    pool = make_pool(ID, "max", HASH, [*own, *other], sample, peaks)
    assert other[place].window.doc_id not in _docs(pool)["other"]
    assert len(pool.items["other"]) == 9
    assert pool.shares["other"] == pytest.approx(19 / 2000)
    assert sum(pool.shares.values()) + pool.between == pytest.approx(1.0)


def test_the_min_pole_is_judged_by_what_reaches_down() -> None:
    own = examples_of("min", 20, value=0.5, first_doc=10_000, word="river")
    windows = windows_of(4, first_doc=50_000)
    peaks = (peaks_of(-0.1, -0.1), peaks_of(0.2, -0.1, -0.2, -0.4))
    pool = make_pool(ID, "min", HASH, own, sample_of(windows, reservoir=2), peaks)
    docs = _docs(pool)
    assert docs["random"] == {50_000, 50_001}
    assert docs["middle"] == {50_002}
    assert len(docs["pole"]) == 10


def test_a_pole_that_random_documents_pass_has_no_negatives() -> None:
    own = examples_of("max", 4, value=0.05, first_doc=10_000, word="river")
    peaks = (peaks_of(0.1, 0.1), peaks_of(0.1, 0.2))
    sample = sample_of(windows_of(2, first_doc=50_000), reservoir=2)
    pool = make_pool(ID, "max", HASH, own, sample, peaks)
    assert not any(pool.items[stratum] for stratum in ("other", "middle", "random"))


def test_a_pole_without_examples_or_random_documents_has_no_texts() -> None:
    pool = make_pool(ID, "max", HASH, [], sample_of([], 0), (peaks_of(), peaks_of()))
    assert pool.take(ALL) == []
    assert pool.base_rate == 0.0


def test_marks_of_negatives_are_those_of_positives_at_another_place() -> None:
    items = pool_of().take(ALL)
    texts = fuzzing_texts(items, seed=1)
    shapes = {
        tuple(mark - (text.marked or ())[0] for mark in text.marked or ())
        for item, text in zip(items, texts, strict=True)
        if item.truth
    }
    for item, text in zip(items, texts, strict=True):
        assert text.marked
        if not item.truth:
            assert tuple(mark - text.marked[0] for mark in text.marked) in shapes
            assert 0 <= text.marked[0] <= text.marked[-1] < len(item.window.token_ends)


def test_marks_do_not_depend_on_the_order_of_the_texts() -> None:
    items = pool_of().take(ALL)
    turned = {id(t.window): t.marked for t in fuzzing_texts(items[::-1], seed=1)}
    for text in fuzzing_texts(items, seed=1):
        assert turned[id(text.window)] == text.marked


def test_documents_that_share_a_beginning_beyond_what_is_counted_are_positive() -> None:
    examples = examples_of("max", 20, value=0.5, first_doc=10_000, word="river")
    examples[0] = dataclasses.replace(examples[0], repeats=19)
    bar = 0.5 * (1 - 0.1 * 19 / 20)
    # Of fifty random documents, ten reach the bar, one of them exactly.
    peaks = (peaks_of(*[0.1] * 24, 0.6), peaks_of(*[0.1] * 16, bar, *[0.6] * 8))
    sample = sample_of(windows_of(25, first_doc=50_000), reservoir=25)
    pool = make_pool(ID, "max", HASH, examples, sample, peaks)
    assert pool.shares["pole"] == pytest.approx(10 / 50)
    assert sum(pool.shares.values()) + pool.between == pytest.approx(1.0)
    assert len(pool.items["random"]) == 16


def test_a_complete_count_of_positives_is_taken_whatever_the_sample_says() -> None:
    examples = examples_of("max", 20, value=0.5, first_doc=10_000, word="river")
    examples[0] = dataclasses.replace(examples[0], repeats=18)
    peaks = (peaks_of(*[0.1] * 24, 0.6), peaks_of(*[0.1] * 25))
    sample = sample_of(windows_of(25, first_doc=50_000), reservoir=25)
    pool = make_pool(ID, "max", HASH, examples, sample, peaks)
    assert pool.shares["pole"] == pytest.approx(38 / 2000)


def test_a_sample_in_which_fewer_reach_the_bar_does_not_lower_the_share() -> None:
    assert pool_of().shares["pole"] == pytest.approx(20 / 2000)
    examples = examples_of("max", 20, value=0.5, first_doc=10_000, word="river")
    examples[0] = dataclasses.replace(examples[0], repeats=19)
    peaks = (peaks_of(*[0.1] * 25), peaks_of(*[0.1] * 25))
    sample = sample_of(windows_of(25, first_doc=50_000), reservoir=25, documents=100)
    pool = make_pool(ID, "max", HASH, examples, sample, peaks)
    assert pool.shares["pole"] == pytest.approx(39 / 100)
