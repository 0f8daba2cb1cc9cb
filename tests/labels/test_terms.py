from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.labels.overuse import binomial_tail, fisher, log_odds
from builder.labels.terms import (
    CAPITALS,
    EMOJI,
    FORMAT_MARK,
    GAP,
    LINE_BREAK,
    LIST_ITEMS,
    LONG_STRINGS,
    MAX_WORDS,
    NUMBERS,
    document_terms,
    formats,
    is_symbol,
    phrases,
    units,
)
from builder.labels.visible import is_hidden, one_line, visible


def terms_of(text: str) -> list[str]:
    return [unit.term for unit in units(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t go, WELL-known café!", ["don’t", "go", ",", "well-known", "café", "!"]),
        ("हिन्दी में தமிழ்", ["हिन्दी", "में", "தமிழ்"]),
        ("画像 です ไท", ["画", "像", "で", "す", "ไ", "ท"]),
        ("カタカナ 한국어", ["カタカナ", "한국어"]),
        ("👩‍👩‍👧🚀 ❤️ 1️⃣ 🇩🇪", ["👩‍👩‍👧", "🚀", "❤", "1⃣", "🇩🇪"]),
        ("x1 = f(3.5, 1,000);", ["x1", "=", "f", "(", "3.5", ",", "1,000", ");"]),
        ("-------- ok", ["---", "ok"]),
        ("при\u200bвет\u202e", ["при", "вет"]),
        (f"one{GAP * 3}two", ["one", "two"]),
        ("a\n\nb", ["a", LINE_BREAK, "b"]),
        ("- a\n 2) b", [LIST_ITEMS, "a", LINE_BREAK, LIST_ITEMS, "b"]),
        ("x" * 41, [LONG_STRINGS]),
        ("", []),
    ],
)
def test_a_text_is_cut_into_its_units(text: str, expected: list[str]) -> None:
    assert terms_of(text) == expected


def test_phrases_join_neighbours_and_end_at_signs_lines_and_gaps() -> None:
    def of(text: str) -> list[str]:
        return [term for term, _, _ in phrases(units(text))]

    assert of("New York City Hall") == [
        "new york",
        "new york city",
        "york city",
        "york city hall",
        "city hall",
    ]
    assert of("画像生") == ["画像", "画像生", "像生"]
    assert of("one, two") == []
    assert of("one\ntwo") == []
    assert of(f"one{GAP}two") == []
    assert [term for term, _, _ in phrases(units("a b c"), {"a", "b"})] == ["a b"]


def test_formats_name_what_different_units_share() -> None:
    def of(text: str) -> set[str]:
        return {term for term, _, _ in formats(text, units(text))}

    assert of("GO AWAY now") == {CAPITALS}
    assert of("I am OK") == set()
    assert of("42 🚀") == {NUMBERS, EMOJI}
    assert of("маяк φάρος 灯") == {
        f"{FORMAT_MARK}Cyrillic script",
        f"{FORMAT_MARK}Greek script",
        f"{FORMAT_MARK}Chinese characters",
    }
    assert of("café naïve Straße") == set()


def test_signs_are_symbols_and_words_emoji_and_formats_are_not() -> None:
    assert [is_symbol(term) for term in ("=", "“", "word", "7", "🚀", "❤", NUMBERS)] == [
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_units_of_any_text_are_in_order_and_hide_nothing(text: str) -> None:
    found = units(text)

    assert all(one.end <= two.start for one, two in itertools.pairwise(found))
    for unit in found:
        assert 0 <= unit.start < unit.end <= len(text)
        if not unit.term.startswith(FORMAT_MARK):
            hidden = {c for c in unit.term if is_hidden(c)} - {"\u200d", "\u034f"}
            assert not hidden
    assert all(term.count(" ") < MAX_WORDS for term in document_terms(text) if term[0] > " ")


def test_fisher_equals_counting_every_draw() -> None:
    def by_counting(count: int, n: int, other: int, n_other: int) -> Fraction:
        population = [1] * (count + other) + [0] * (n + n_other - count - other)
        draws = list(itertools.combinations(population, n))
        return Fraction(sum(sum(draw) >= count for draw in draws), len(draws))

    for count, n, other, n_other in [(3, 4, 1, 6), (0, 3, 2, 5), (2, 5, 0, 5), (4, 4, 4, 6)]:
        assert fisher(count, n, other, n_other) == pytest.approx(
            float(by_counting(count, n, other, n_other)), rel=1e-12
        )


def test_binomial_tail_equals_counting_every_outcome() -> None:
    rate = 0.3
    for count in range(6):
        expected = math.fsum(
            math.prod(rate if success else 1 - rate for success in outcome)
            for outcome in itertools.product((0, 1), repeat=5)
            if sum(outcome) >= count
        )
        assert binomial_tail(count, 5, rate) == pytest.approx(expected, rel=1e-12)


def test_log_odds_grow_with_the_difference_and_with_the_evidence() -> None:
    weak = log_odds(5, 20, 40, 400, 10)
    strong = log_odds(18, 20, 40, 400, 10)
    certain = log_odds(18, 20, 400, 4000, 10)

    assert 0 < weak < strong < certain
    assert log_odds(1, 20, 300, 400, 10) < 0
    assert math.isfinite(log_odds(20, 20, 0, 400, 10))


def test_hidden_characters_become_visible_on_one_line() -> None:
    text = "a\r\nb\tc\u200bd\u202ee\u2028f\x00g\ud800h\U000e0041i\ufe0fj\xa0k"

    assert visible(text) == (
        "a⏎b⇥c\\u{200b}d\\u{202e}e\\u{2028}f\\u{0}g\\u{d800}h\\u{e0041}i\ufe0fj\xa0k"
    )


def test_one_line_drops_what_is_hidden_and_cuts() -> None:
    assert one_line("  a \n\n b\u202e\u200bc\x07 ", 80) == "a bc"
    assert one_line("x" * 100, 10) == "x" * 9 + "…"
    assert one_line("x " * 10**6, 10) == "x x x x x…"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.integers(1, 30))
def test_one_line_of_any_text_is_bounded_and_encodes(text: str, longest: int) -> None:
    line = one_line(text, longest)

    assert len(line) <= longest
    assert len(line.splitlines()) <= 1
    line.encode("utf-8")
    visible(text).encode("utf-8")
    assert len(visible(text).splitlines()) <= 1
