"""Names, numbers, charts, labels' order, search columns: the small parts of pages."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.assets import asset_dir
from builder.pages import charts, formats, links
from builder.pages.label_view import pole_view
from builder.pages.levels import Levels, thumbnail
from builder.pages.views import farthest, flat
from builder.records import HISTOGRAM_BINS, Label, LabelFailure, Range


@given(st.text(max_size=200))
def test_a_file_name_is_safe_whatever_the_text(text: str) -> None:
    name = links.file_name(text)
    assert 0 < len(name) < 100
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert name[0] not in ".-"


@given(st.lists(st.text(max_size=12), unique=True, max_size=20))
def test_file_names_of_different_texts_differ(texts: list[str]) -> None:
    names = links.unique_file_names(texts, taken=("index",))
    assert len({*names.values(), "index"}) == len(texts) + 1


def test_the_id_of_a_direction_is_its_file_name_in_lower_case() -> None:
    assert links.file_name("L07.down_proj.u03") == "l07.down_proj.u03"


@pytest.mark.parametrize(
    ("page", "root"), [("index.html", ""), ("m/a/index.html", "../../"), ("data/x.js", "../")]
)
def test_the_root_leads_back_to_the_top(page: str, root: str) -> None:
    assert links.root_of(page) == root


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_are_written_without_hyphen_exponent_padding_or_minus_zero(value: float) -> None:
    for text in (formats.fixed(value), formats.signed(value), formats.short(value)):
        assert "-" not in text
        assert text not in {"\N{MINUS SIGN}0", "\N{MINUS SIGN}0.000"}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.signed(-0.0004, 3), "0.000"),
        (formats.signed(0.25, 2), "+0.25"),
        (formats.fixed(None), "\N{EN DASH}"),
        (formats.short(1234.5), "1234"),
        (formats.short(0.012345), "0.0123"),
        (formats.short(9.9999, 2), "10"),
        (formats.short(3.2e-7), "3.20e\N{MINUS SIGN}7"),
        (formats.whole(1234567), "1\N{NO-BREAK SPACE}234\N{NO-BREAK SPACE}567"),
        (formats.share(0.0302), "3.0\N{NO-BREAK SPACE}%"),
        (formats.share(math.nan), "\N{EN DASH}"),
        (formats.passed(0.948), "94\N{NO-BREAK SPACE}%"),
        (formats.passed(0.29), "29\N{NO-BREAK SPACE}%"),
        (formats.passed(1.0), "100\N{NO-BREAK SPACE}%"),
        (formats.passed(None), "\N{EN DASH}"),
    ],
)
def test_numbers_are_written_for_readers(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/somebody/models/tuned", "…/models/tuned"),
        ("C:\\Users\\somebody\\m\\tuned", "…/m/tuned"),
        ("~/models/tuned", "…/models/tuned"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
    ],
)
def test_a_local_path_shows_no_more_than_its_end(path: str, shown: str) -> None:
    assert formats.place(path) == shown


def test_nested_settings_become_dotted_names() -> None:
    table = {
        "scan": {"top": 20, "on": True},
        "sources": [{"path": "/a/b/c"}, {"name": ""}],
        "x": None,
    }
    assert dict(flat(table)) == {
        "scan.top": "20",
        "scan.on": "true",
        "sources.0.path": "…/b/c",
    }


def _range(role: str, n: int, low: float, high: float, std: float = 0.1) -> Range:
    return Range("d", role, n, low, high, 0.0, std)


def test_the_tail_is_the_farthest_end_over_content_roles_with_enough_tokens() -> None:
    ranges = [
        _range("user", 5000, -0.9, 0.4),
        _range("assistant", 5000, -0.2, 0.5),
        _range("system", 5, -1.0, 1.0),
        _range("template", 5000, -1.0, 1.0),
    ]
    tail = farthest(ranges)
    assert tail is not None
    assert (tail.pole, tail.role) == ("min", "user")
    assert tail.distance == pytest.approx(9.0)
    above = farthest(ranges, ("max",))
    assert above is not None
    assert above.role == "assistant"
    assert above.distance == pytest.approx(5.0)


def test_no_tail_is_known_without_tokens_or_spread() -> None:
    assert farthest([]) is None
    assert farthest([_range("user", 5000, 0.0, 0.0, std=0.0)]) is None


def test_a_label_goes_before_no_pattern_and_that_before_a_failure() -> None:
    named = Label("d", "max", "keywords", "a, b")
    model = Label("d", "max", "some-model", "about a and b")
    nothing = Label("d", "max", "another-model", None)
    failure = LabelFailure("d", "max", "a-third-model", "refusal")
    assert pole_view("max", [failure, nothing, named, model]).label is model
    assert pole_view("max", [failure, nothing, named]).label is named
    assert pole_view("max", [failure, nothing]).state == "none"
    assert pole_view("max", [failure]).state == "failed"
    assert pole_view("max", [failure]).text is None
    assert pole_view("max", []).state == "unlabelled"


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10**9), min_size=HISTOGRAM_BINS, max_size=HISTOGRAM_BINS),
    st.floats(-1, 1),
    st.floats(-1, 1),
)
def test_a_histogram_has_a_height_for_every_column(counts: list[int], a: float, b: float) -> None:
    extent = (min(a, b), max(a, b))
    low, high, heights = charts.histogram_heights(np.asarray(counts, dtype=np.int64), extent)
    assert -1 <= low <= extent[0] + 1e-9
    assert high >= extent[1] - 1e-9
    assert 1 <= len(heights) <= charts.COLUMNS
    assert set(heights) <= set(charts.LEVELS)


def test_a_columns_height_is_that_of_all_its_bins_on_a_logarithmic_scale() -> None:
    counts = np.zeros(HISTOGRAM_BINS, dtype=np.int64)
    counts[100], counts[300] = 999, 99  # far apart, of which neither hides the other
    _, _, heights = charts.histogram_heights(counts, (-1.0, 1.0))
    there = [charts.LEVELS.index(letter) for letter in heights if letter != charts.LEVELS[0]]
    assert there == [63, 42], "logarithms of 1,000 and of 100"
    counts[[100, 300]] = 1, 10**9
    _, _, heights = charts.histogram_heights(counts, (-1.0, 1.0))
    assert sum(letter != charts.LEVELS[0] for letter in heights) == 2, "one token is to be seen"


@given(st.floats(allow_nan=True))
def test_a_share_is_one_of_twenty_one_bars(share: float) -> None:
    name = formats.bar_class(share)
    step = int(name.removeprefix("w"))
    assert 0 <= step <= 20
    if math.isfinite(share):
        assert abs(step / 20 - min(1, max(0, share))) <= (0.025 if share > 0.025 else 0.05) + 1e-9
        assert (step > 0) == (share > 0), "a share that is there is to be seen, however small"


def test_every_bar_has_its_style() -> None:
    style = (asset_dir() / "static" / "data.css").read_text(encoding="utf-8")
    assert formats.bar_class(None) == "w0"
    for step in range(21):
        assert f".w{step} {{ --part: {step}; }}" in style


@pytest.mark.parametrize(
    ("text", "shown"),
    [(" ", "␣"), ("\n\t", "↵⇥"), (" low tide", "␣low tide"), ("tide\n ", "tide↵␣"), ("", "")],
)
def test_white_space_around_a_token_can_be_seen(text: str, shown: str) -> None:
    assert formats.spaced(text) == shown


def test_levels_go_from_one_to_seven() -> None:
    levels = Levels.of([0.01, 0.1, 1.0])
    assert [levels.step(value) for value in (None, 0.0, math.nan, 0.01, 1.0, 2.0)] == [
        0, 0, 0, 1, 7, 7,
    ]  # fmt: skip
    assert [levels.step(start * 1.0001) for start in levels.starts()] == list(range(1, 8))


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_levels_place_every_value(values: list[float]) -> None:
    levels = Levels.of(values)
    assert all(0 <= levels.step(value) <= 7 for value in values)


def test_dots_and_bars_of_nothing_are_drawn_as_nothing() -> None:
    assert charts.dots([("none", "own", [])], "sd") == ""
    assert "NaN" not in charts.bar([("fill", 0.0)], "none")
    assert thumbnail([], "") == ""
