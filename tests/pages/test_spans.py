"""Text from outside as markup: nothing unescaped, nothing hidden, nothing lost."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.pages.spans import (
    LONGEST_LABEL,
    LONGEST_TOKEN,
    Pieces,
    Scale,
    brief,
    highlight,
    marked_hidden,
    marked_token,
    plain,
    visible,
)
from builder.records import ACTIVATION_SCALE, ROLES, Example, Window
from tests.pages.texts import HIDDEN

TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)
SCALE = Scale(low=-0.5, centre=0.0, high=0.5)


class _Reader(HTMLParser):
    """Text content, and every tag and attribute met on the way."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


def boxed(text: str) -> str:
    """The text content that pages should have: code points without the brackets of plain()."""
    return re.sub(r"⟦(U\+[0-9A-F]{4,6})⟧", r"\1", plain(text))


def example(tokens: list[str], values: list[float], peak: int, roles: list[int]) -> Example:
    text = "".join(tokens)
    ends = np.cumsum([len(token) for token in tokens]).astype(np.uint32)
    return Example(
        "L00.o_proj.u00", "user", "max", 0, values[peak], peak, 0,
        Window(7, "somewhere", 0, text, ends),
        np.rint(np.asarray(values) * ACTIVATION_SCALE).astype(np.int16),
        np.asarray(roles, dtype=np.uint8),
    )  # fmt: skip


def html_of(item: Example) -> str:
    return str(highlight(item, SCALE))


@given(TEXTS)
def test_visible_text_reads_as_the_text_with_hidden_characters_named(text: str) -> None:
    reader = read(str(visible(text)))
    assert reader.text == boxed(text)
    assert reader.tags <= {"b"}
    assert reader.attributes <= {"class", "title"}


@given(
    st.lists(
        st.tuples(TEXTS, st.floats(-1, 1), st.integers(0, len(ROLES) - 1)), min_size=1, max_size=12
    ),
    st.data(),
)
def test_highlighted_tokens_read_as_the_text_and_bring_no_tags(
    parts: list[tuple[str, float, int]], data: st.DataObject
) -> None:
    tokens, values, roles = (list(column) for column in zip(*parts, strict=True))
    peak = data.draw(st.integers(0, len(tokens) - 1))
    item = example(tokens, values, peak, roles)
    pieces = Pieces.of(item.window)
    html = html_of(item)
    reader = read(html)
    cut = list(zip(pieces.starts, pieces.ends, strict=True))
    assert reader.text == "".join(boxed(item.window.text[start:end]) for start, end in cut)
    assert reader.tags <= {"i", "b", "span"}
    assert reader.attributes <= {"class", "title", "data-r"}
    # Every piece with colour is a mark, and so is the peak, whatever its colour.
    steps = np.abs(SCALE.steps(item.activations / ACTIVATION_SCALE))
    held = zip(pieces.firsts, pieces.lasts, strict=True)
    marked = [first <= peak <= last or steps[first : last + 1].any() for first, last in held]
    assert html.count("<i ") == sum(marked)


@given(TEXTS)
def test_plain_text_holds_no_hidden_character(text: str) -> None:
    shown = plain(text)
    assert plain(shown) == shown
    for character in shown:
        category = unicodedata.category(character)
        assert category not in {"Cc", "Cs", "Co", "Zl", "Zp"} or character in "\n\t"


@pytest.mark.parametrize(("character", "name"), HIDDEN.items(), ids=HIDDEN.values())
def test_each_hidden_character_is_a_box_with_its_code_point(character: str, name: str) -> None:
    html = str(visible(f"a{character}b"))
    assert character not in html
    assert f">{name}</b>" in html


def test_every_control_and_format_character_is_hidden_but_those_with_ink() -> None:
    # Signs that scripts draw around or before numbers are format characters one can see.
    drawn = {*range(0x600, 0x606), 0x6DD, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        if category in {"Cc", "Cf", "Zl", "Zp", "Cs", "Co"} and code not in drawn:
            assert chr(code) in "\n\t" or plain(f"a{chr(code)}b") != f"a{chr(code)}b", hex(code)


@pytest.mark.parametrize("plane", range(17))
def test_the_last_two_places_of_a_plane_are_hidden(plane: int) -> None:
    for code in (plane << 16 | 0xFFFE, plane << 16 | 0xFFFF):
        assert plain(f"a{chr(code)}b") == f"a⟦U+{code:04X}⟧b"


@pytest.mark.parametrize("text", ["👩\u200d💻", "🏳\ufe0f\u200d🌈", "👍\U0001f3fd", "❤\ufe0f"])
def test_an_emoji_sequence_stays_one_picture(text: str) -> None:
    assert str(visible(text)) == text


def test_letters_of_every_script_stay_as_they_are() -> None:
    text = "Grüße, привет, 你好, こんにちは, 안녕, مرحبا, नमस्ते, ไทย, café"
    assert str(visible(text)) == text


def test_a_character_split_over_tokens_is_drawn_once_with_all_its_values() -> None:
    window = Window(0, "s", 0, "a🎉b", np.asarray([1, 2, 2, 3], dtype=np.uint32))
    values = np.asarray([0.0, 0.2, 0.4, 0.0]) * ACTIVATION_SCALE
    item = Example("d", "user", "max", 0, 0.4, 2, 0, window, np.rint(values).astype(np.int16),
                   np.zeros(4, dtype=np.uint8))  # fmt: skip
    html = html_of(item)
    assert html.count("🎉") == 1
    assert 'class="p6 k" title=+.200/+.400>🎉</i>' in html


@given(TEXTS)
def test_hidden_characters_are_named_for_the_script_between_two_of_u0000(text: str) -> None:
    named = marked_hidden(text).split("\0")
    assert all(plain(part) == part for part in named[::2])
    names = [name for name, *_ in (part.split(" ") for part in named[1::2])]
    together = "".join(part for pair in zip(named[::2], [*names, ""], strict=True) for part in pair)
    assert together == boxed(text)


def test_a_too_long_token_is_shortened_for_the_script_as_in_html() -> None:
    token = "\u202e" + "x" * 10_000
    html = read(html_of(example([token], [0.3], 0, [0])))
    parts = [part.partition(" ")[0] if part.startswith("U+") else part
             for part in marked_token(token).split("\0")]  # fmt: skip
    assert "".join(parts) == html.text


def test_a_token_of_ten_thousand_characters_is_shortened_and_says_so() -> None:
    reader = read(html_of(example(["x" * 10_000], [0.3], 0, [0])))
    assert len(reader.text) < 2 * LONGEST_TOKEN
    assert f"{10_000 - 2 * (LONGEST_TOKEN // 4)} more characters" in reader.text


@given(st.text(max_size=400), st.integers(2, 200))
def test_a_brief_text_is_the_text_or_its_beginning_with_an_ellipsis(
    text: str, longest: int
) -> None:
    shown = brief(text, longest)
    assert len(shown) <= longest
    if len(text) <= longest:
        assert shown == text
    else:
        assert shown.endswith("…")
        assert text.startswith(shown[:-1])


def test_a_brief_text_ends_between_words_where_it_can() -> None:
    words = "word " * 100
    assert brief(words) == "word " * (LONGEST_LABEL // 5 - 1) + "word…"
    assert brief("w" * 1000) == "w" * (LONGEST_LABEL - 1) + "…"


def test_stretches_of_one_role_say_whose_they_are() -> None:
    html = html_of(example(["a", "b", "c"], [0.0, 0.5, 0.0], 1, [5, 0, 0]))
    assert re.findall(r"data-r=(\w+)", html) == ["template", "user"]


def test_steps_reach_seven_at_the_ends_and_none_at_the_centre() -> None:
    scale = Scale(low=-0.1, centre=0.3, high=0.5)
    values = np.asarray([-0.5, -0.1, 0.28, 0.3, 0.32, 0.5, 0.9])
    assert scale.steps(values).tolist() == [-7, -7, 0, 0, 0, 7, 7]
    middles = np.asarray([scale.value_at(step) for step in range(-7, 8)])
    assert scale.steps(middles).tolist() == list(range(-7, 8))


def test_a_scale_without_extent_colours_nothing() -> None:
    assert Scale(0.2, 0.2, 0.2).steps(np.asarray([0.2, 0.3, 0.1])).tolist() == [0, 0, 0]
