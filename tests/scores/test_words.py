"""The bag-of-words judge finds the words of a label, weighs them, and knows nothing else."""

from __future__ import annotations

import pytest

from builder.labels.evidence import Background
from builder.scores.judge import Text
from builder.scores.words import WordJudge
from tests.labels.making import window_of


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
def test_a_text_with_the_most_telling_term_is_a_yes(label: str, text: str) -> None:
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


def test_two_telling_terms_are_surer_than_one() -> None:
    assert _verdict("heron, tide", "a heron") < _verdict("heron, tide", "a heron in the tide") == 1


def test_words_in_every_text_say_yes_to_every_text() -> None:
    assert _verdict("the", "the end") >= 0.5


def test_a_label_in_someones_words_is_judged_word_by_word() -> None:
    assert _verdict("texts about good news", "all news is here", as_phrases=False) > 0
    assert _verdict("good news", "all news is here") == 0


def test_in_fuzzing_only_terms_near_the_marks_count() -> None:
    text = "a heron stood there " + "and then some more words came along " * 8
    window = window_of(text)
    n = len(window.token_ends)
    near, far = Text(window, 1, (2,)), Text(window, n - 1, (n - 1,))
    assert _judge().judge("heron", [near, far], "fuzzing").values == (0.5, 0.0)
