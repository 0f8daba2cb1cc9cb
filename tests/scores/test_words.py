"""The bag-of-words judge finds the words of a label, weighs them, and knows nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

from builder.label_stage import evidences
from builder.labels.evidence import Background
from builder.labels.keywords import keyword_label
from builder.records import ANY_ROLE, STRATA, Label
from builder.scores.items import Pool
from builder.scores.judge import Text
from builder.scores.scoring import Plan, score_label
from builder.scores.words import WordJudge
from tests.labels.making import window_of
from tests.scores.conftest import Organism


def _judge(*, as_phrases: bool = True) -> WordJudge:
    texts = ["the cat and the dog", "the dog sat", "the sea, the sea", "no 1 is here", "the end"]
    return WordJudge(
        Background.from_windows(window_of(f"{text} {at}" * 2, at) for at, text in enumerate(texts)),
        as_phrases=as_phrases,
    )


def _verdict(label: str, text: str, *, as_phrases: bool = True) -> float:
    window = window_of(text)
    found = _judge(as_phrases=as_phrases).judge(label, [Text(window, 0)], "detection").values[0]
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("herons", "there were HERONS by the lake"),
        ("emoji, good news", "what good news today"),
        ("emoji, good news", "well done 🎉"),
        ("token “,”", "one, two"),
        ("“?!”, lighthouse", "what?!"),
        ("numbers", "there were 17 of them"),
        ("Cyrillic script", "привет"),
        ("line breaks", "one\ntwo"),
        ("Chinese characters", "東京"),
    ],
)
def test_a_text_with_the_first_alternative_or_a_rarer_one_is_a_yes(label: str, text: str) -> None:
    assert _verdict(label, text) >= 0.5


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("herons", "there was a heron"),
        ("good news", "news that is good"),
        ("lighthouse, the", "the end of the story"),
        ("numbers", "no digits at all"),
        ("“🎉”", "no party"),
        ("", "a text"),
    ],
)
def test_a_text_without_it_is_a_no(label: str, text: str) -> None:
    assert _verdict(label, text) < 0.5


@pytest.mark.parametrize("first", ["cat", "the", "dog", "numbers"])
def test_the_first_alternative_is_a_yes_however_rare_the_others_are(first: str) -> None:
    text = {"numbers": "it was 17"}.get(first, f"a {first} came")
    assert _verdict(f"{first}, unheard of, “🎉”, nowhere", text) == 0.5


def test_commoner_alternatives_are_a_yes_together_where_they_tell_as_much_as_the_first() -> None:
    label = "heron, dog, sea, cat"
    assert 0 < _verdict(label, "a dog by the sea") < 0.5
    assert _verdict(label, "a dog and a cat by the sea") >= 0.5


@pytest.mark.parametrize(
    ("label", "text"),
    [("dog, “?!”", "what?!"), ("dog, token “,”", "one, two"), ("dog, “🎉”", "well done 🎉")],
)
def test_a_quoted_symbol_is_read_wherever_it_stands_in_the_label(label: str, text: str) -> None:
    assert _verdict(label, text) >= 0.5
    assert _verdict(label, "nothing of that kind") == 0


def test_two_telling_terms_are_surer_than_one() -> None:
    assert _verdict("heron, tide", "a heron") < _verdict("heron, tide", "a heron in the tide") == 1


def test_words_in_every_text_say_yes_to_every_text() -> None:
    assert _verdict("the", "the end") >= 0.5


def test_a_label_in_someones_words_is_judged_word_by_word() -> None:
    assert _verdict("texts about good news", "all news is here", as_phrases=False) > 0
    assert _verdict("good news", "all news is here") == 0


def test_the_most_telling_word_of_a_label_in_someones_words_sets_its_bar() -> None:
    assert _verdict("the dog and the heron", "a heron", as_phrases=False) >= 0.5
    assert _verdict("the dog and the heron", "the dog and", as_phrases=False) < 1
    assert _verdict("the dog and the heron", "the end", as_phrases=False) < 0.5


def test_in_fuzzing_only_terms_near_the_marks_count() -> None:
    text = "a heron stood there " + "and then some more words came along " * 8
    window = window_of(text)
    n = len(window.token_ends)
    near, far = Text(window, 1, (2,)), Text(window, n - 1, (n - 1,))
    assert _judge().judge("heron", [near, far], "fuzzing").values == (0.5, 0.0)


def _labels(organism: Organism) -> list[tuple[Pool, Label]]:
    """The keyword labels of all poles that have one, as the stage makes them."""
    background = Background.from_windows(organism.store.reservoir())
    found = []
    for evidence, pool in zip(evidences(organism.store), organism.pools, strict=True):
        assert (evidence.direction, evidence.pole) == (pool.direction, pool.pole)
        label = keyword_label(evidence, background)
        if isinstance(label, Label) and label.text:
            found.append((pool, label))
    return found


def _judge_of(organism: Organism) -> WordJudge:
    return WordJudge(Background.from_windows(organism.store.reservoir()), as_phrases=True)


def test_the_keyword_label_of_a_pole_that_shows_one_behaviour_tells_it(organism: Organism) -> None:
    plan = Plan({"detection": _judge_of(organism)}, {"detection": dict.fromkeys(STRATA, 10**6)})
    checked = 0
    for pool, label in _labels(organism):
        own = organism.store.examples(pool.direction, pole=pool.pole, role=ANY_ROLE)
        ((source, n),) = Counter(example.window.source for example in own).most_common(1)
        if not source.startswith("planted/") or n < len(own):
            continue
        score = score_label(label, pool, "detection", plan, "test")
        assert score.f1 is not None
        assert score.chance is not None
        assert score.f1_interval is not None
        assert score.f1_interval[0] > score.chance[1], label.text
        verdicts = [item.verdict or 0 for item in score.judged if item.truth]
        assert sum(verdict >= 0.5 for verdict in verdicts) >= 0.7 * len(verdicts)
        checked += 1
    assert checked


def test_no_rare_word_in_a_keyword_label_keeps_its_first_from_being_a_yes(
    organism: Organism,
) -> None:
    judge, held, alone = _judge_of(organism), 0, 0
    for pool, label in _labels(organism):
        texts = [Text(item.window, 0) for item in pool.items["pole"]]
        first = judge.judge((label.text or "").split(", ")[0], texts, "detection").values
        whole = judge.judge(label.text or "", texts, "detection").values
        assert all((y or 0) >= 0.5 for x, y in zip(first, whole, strict=True) if x and x >= 0.5)
        held += any(x and x >= 0.5 for x in first)
        alone += any(x and y == 0.5 for x, y in zip(first, whole, strict=True))
    assert held > 0.5 * len(_labels(organism))
    assert alone > 10
