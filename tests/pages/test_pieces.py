"""Windows are cut between characters, and what is cut out of one keeps its tokens together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.pages.spans import Pieces, near_peak
from builder.records import Example, Window
from tests.pages.windows import UNTIMED, examples, windows


def ends(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.asarray(values, dtype=np.uint32)


@UNTIMED
@given(windows())
def test_pieces_hold_every_token_and_character_once(window: Window) -> None:
    pieces = Pieces.of(window)
    cut = list(zip(pieces.starts, pieces.ends, strict=True))
    covered = min(int(window.token_ends.max(initial=0)), len(window.text))
    assert "".join(window.text[start:end] for start, end in cut) == window.text[:covered]
    # Only where no token has a character is there a piece without any.
    assert len(cut) < 2 or all(start < end for start, end in cut)
    held = [
        token
        for first, last in zip(pieces.firsts, pieces.lasts, strict=True)
        for token in range(first, last + 1)
    ]
    assert held == list(range(len(window.token_ends)))


@UNTIMED
@given(windows())
def test_the_text_of_a_token_is_that_of_the_piece_that_holds_it(window: Window) -> None:
    pieces = Pieces.of(window)
    spans = zip(pieces.starts, pieces.ends, pieces.firsts, pieces.lasts, strict=True)
    of_token = {
        token: window.text[start:end]
        for start, end, first, last in spans
        for token in range(first, last + 1)
    }
    n = len(window.token_ends)
    assert {token: Pieces.text_at(window, token) for token in range(n)} == of_token
    assert Pieces.text_at(window, n) == Pieces.text_at(window, -1) == ""


def test_a_character_is_the_text_of_all_its_tokens() -> None:
    window = Window(0, "s", 0, "a🎉b", ends(1, 2, 2, 3))
    assert [Pieces.text_at(window, token) for token in range(4)] == ["a", "🎉", "🎉", "b"]
    # Of a window that begins amid a character the rest of it goes with the next one.
    rest = window.part(2, 2)
    assert [Pieces.text_at(rest, token) for token in range(2)] == ["b", "b"]


@UNTIMED
@given(examples(), st.integers(1, 5))
def test_what_is_near_the_peak_stays_aligned_with_it(example: Example, context: int) -> None:
    part = near_peak(example, context)
    first = part.window.start - example.window.start
    n = len(part.activations)
    last = first + n - 1
    assert first + part.peak == example.peak
    assert 0 <= first <= max(0, example.peak - context)
    assert min(len(example.activations) - 1, example.peak + context) <= last
    assert np.array_equal(part.activations, example.activations[first : last + 1])
    assert np.array_equal(part.roles, example.roles[first : last + 1])
    assert (part.base_activations is None) == (example.base_activations is None)
    if part.base_activations is not None and example.base_activations is not None:
        assert np.array_equal(part.base_activations, example.base_activations[first : last + 1])
    assert len(part.window.token_ends) == n
    own = example.window.part(first, n)
    assert (part.window.text, part.window.doc_id) == (own.text, own.doc_id)
    assert np.array_equal(part.window.token_ends, own.token_ends)


@UNTIMED
@given(examples(), st.integers(1, 5))
def test_what_is_near_the_peak_tears_no_shared_character(example: Example, context: int) -> None:
    part = near_peak(example, context)
    first = part.window.start - example.window.start
    last = first + len(part.activations) - 1
    bounds = example.window.token_ends
    # A token that ends where the one before it does holds a part of the same character.
    assert first == 0 or bounds[first] > bounds[first - 1]
    assert last == len(bounds) - 1 or bounds[last + 1] > bounds[last]
    # No more is kept than that takes.
    wanted = (example.peak - context, example.peak + context)
    assert all(bounds[at] == bounds[at - 1] for at in range(first + 1, max(0, wanted[0]) + 1))
    assert all(bounds[at] == bounds[at - 1] for at in range(min(wanted[1], last) + 1, last + 1))


@pytest.mark.parametrize(
    ("at", "context", "text", "peak", "n"),
    [(3, 1, "🎉b🎉", 2, 6), (5, 2, "b🎉c", 2, 5), (8, 1, "c.", 1, 2), (8, 2, "🎉c.", 4, 5),
     (3, 9, "a🎉b🎉c.", 3, 9)],
)  # fmt: skip
def test_a_character_at_the_edge_comes_with_all_its_tokens(
    at: int, context: int, text: str, peak: int, n: int
) -> None:
    # 🎉 is two tokens the first time and three the second.
    window = Window(0, "s", 40, "a🎉b🎉c.", ends(1, 2, 2, 3, 4, 4, 4, 5, 6))
    values, roles = np.arange(9, dtype=np.int16), np.zeros(9, np.uint8)
    part = near_peak(Example("d", "user", "max", 0, 0.5, at, 0, window, values, roles), context)
    assert (part.window.text, part.peak, len(part.activations)) == (text, peak, n)
    assert part.activations[part.peak] == at
    assert Pieces.text_at(part.window, part.peak) == Pieces.text_at(window, at)
