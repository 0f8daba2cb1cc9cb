"""What the site's search finds, and in what order: in Chromium, without a page around it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.pages.ranking import Row, columns, rank, ranking_page

pytestmark = pytest.mark.browser

WHOLE = ["whole", "begins", "keyword", "peak", "token", "inside"]
ROWS: list[Row] = [
    {"id": "inside", "label": "of centipedes", "keywords": "betided"},
    {"id": "token", "label": "of the sea", "tokens": "tide"},
    {"id": "peak", "label": "at the sea", "peaks": "tide"},
    {"id": "keyword", "label": "of water", "keywords": "tide"},
    {"id": "begins", "label": "tidewater"},
    {"id": "whole", "label": "the tide table"},
    {"id": "accent", "label": "at the café"},
    {"id": "decomposed", "label": "two cafe\u0301s"},
    {"id": "harbour", "label": "the harbour master"},
    {"id": "prompts", "label": "image prompts"},
    {"id": "moon", "label": "山上月光"},
    {"id": "train", "label": "утренний поезд"},
    {"id": "thai", "label": "ภาษาไทยง่าย"},
    {"id": "emoji", "label": "replies with 👩\u200d💻 or 🎉🎉"},
    {"id": "dunder", "label": "python __init__ files"},
    {"id": "snake", "label": "names in snake_case"},
    {"id": "operator", "label": "i += 1 in C++"},
    {"id": "wide", "label": "ＦＵＬＬ width, ﬁne"},
    {"id": "sigma", "label": "ΟΔΟΣ και ΣΟΦΙΑ"},
    {"id": "quotes", "label": "ends in “,” and a cook’s ‘oven’"},
    {"id": "L07.down_proj.u03", "label": "nothing"},
    {"id": "L07.o_proj.u03", "label": "anything"},
]


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    found = ranking_page(browser)
    yield found
    found.close()


@pytest.mark.parametrize("read", [False, True], ids=["texts", "words"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("tide", WHOLE),
        ("TIDE", WHOLE),
        ("tied", WHOLE),
        ("tide table", ["whole"]),
        ("table tide", ["whole"]),
        ('"tide" table?', ["whole"]),
        ("tide tbale", ["whole"]),
        ("tiled", []),
        ("nosuchword tide", []),
        ("café", ["accent", "decomposed"]),
        ("cafe", ["accent", "decomposed"]),
        ("CAFE\u0301", ["accent", "decomposed"]),
        ("harbuor", ["harbour"]),
        ("harbou", ["harbour"]),
        ("harbor", ["harbour"]),
        ("habrour mastr", ["harbour"]),
        ("harvou", ["harbour"]),
        ("prmopt", ["prompts"]),
        ("prompt imge", ["prompts"]),
        ("月光", ["moon"]),
        ("上", ["moon"]),
        ("поезд", ["train"]),
        ("ПОЕЗД утр", ["train"]),
        ("поед", ["train"]),
        ("ไทย", ["thai"]),
        ("🎉", ["emoji"]),
        ("👩\u200d💻", ["emoji"]),
        ("💻", ["emoji"]),
        ("__init__", ["dunder"]),
        ("init", ["dunder"]),
        ("snake_case", ["snake"]),
        ("case", ["snake"]),
        ("+=", ["operator"]),
        ("c++", ["operator"]),
        ("full fine", ["wide"]),
        ("οδος", ["sigma"]),
        ("σοφια", ["sigma"]),
        ('","', ["quotes"]),
        ("“,”", ["quotes"]),
        ("cook's 'oven'", ["quotes"]),
        ("cook’s", ["quotes"]),
        ("L07.down_proj.u03", ["L07.down_proj.u03"]),
        ("l07.down", ["L07.down_proj.u03"]),
        ("07.o_proj.u", ["L07.o_proj.u03"]),
        ("u03", ["L07.o_proj.u03", "L07.down_proj.u03"]),
        ("u03 down_proj", ["L07.down_proj.u03"]),
    ],
)
def test_rows_are_ranked_by_field_and_place_of_the_words(
    page: Page, query: str, expected: list[str], read: bool
) -> None:
    found = rank(page, [ROWS], query, read=read)
    if query == "u03":
        assert set(found) == set(expected)
    else:
        assert found == expected


@pytest.mark.parametrize("query", ["tide", "tied", "u03", "a", "mastr harbou", "l07.", "the"])
def test_rows_are_ranked_alike_in_one_script_and_in_several(page: Page, query: str) -> None:
    wanted = rank(page, [ROWS], query, read=True)
    parts = [ROWS[at : at + 4] for at in range(0, len(ROWS), 4)]
    assert wanted
    assert rank(page, parts, query, read=True) == wanted
    assert rank(page, parts, query, read=False) == wanted


def test_rare_words_weigh_more_short_labels_too_and_sigma_breaks_ties(page: Page) -> None:
    rows: list[Row] = [
        {"id": "common", "label": "red kite", "keywords": "heron"},
        {"id": "rare", "label": "heron", "keywords": "red kite"},
        *({"id": f"filler{at}", "label": "red"} for at in range(6)),
    ]
    assert rank(page, [rows], "red heron", read=True)[0] == "rare"
    longer: list[Row] = [
        {"id": "long", "label": "an oak that stands among many other trees"},
        {"id": "short", "label": "an oak"},
    ]
    assert rank(page, [longer], "oak", read=True) == ["short", "long"]
    tied: list[Row] = [
        {"id": "none", "label": "oak"},
        {"id": "weak", "label": "oak", "sigma": 1},
        {"id": "strong", "label": "oak", "sigma": 2},
    ]
    assert rank(page, [tied], "oak", read=True) == ["strong", "weak", "none"]


def test_known_words_that_no_row_has_together_are_widened(page: Page) -> None:
    rows: list[Row] = [
        {"id": "meant", "label": "a general station"},
        {"id": "other", "label": "generol mills"},
    ]
    assert rank(page, [rows], "generol", read=True)[0] == "other"
    assert rank(page, [rows], "generol station", read=True) == ["meant"]


def made_up(rng: np.random.Generator, n: int) -> list[str]:
    """Texts of few letters in many scripts, so that words meet."""
    letters = list("abcABC_019éß 月光й \u0301🎉. -+")
    return ["".join(rng.choice(letters, int(rng.integers(0, 25)))).strip() for _ in range(n)]


def test_words_and_texts_give_the_same_scores(page: Page) -> None:
    rng = np.random.default_rng(8)
    texts = made_up(rng, 120)
    rows: list[Row] = []
    for at in range(40):
        label, keywords, tokens = texts[at::40]
        name = f"L0{at % 7}.up.u{at}"
        rows.append({"id": name, "label": label, "keywords": keywords, "tokens": tokens})
    queries = [text[int(rng.integers(4)) :][: int(rng.integers(1, 5))] for text in texts]
    queries += [f"{texts[at][:3]} {texts[at][-2:]}" for at in range(40)]
    found: list[list[list[float]] | None] = page.evaluate(
        """([data, queries]) => {
            const made = () => {
                const index = new WA.Index();
                index.add("run", data);
                return index;
            };
            const read = made();
            while (read.readOne());
            return queries.map((query) => {
                const both = [made(), read].map((index) => index.find(query).scores);
                return both[0] && both.map((scores) => [...scores]);
            });
        }""",
        [columns(rows), queries],
    )
    hits = 0
    for query, both in zip(queries, found, strict=True):
        if both is not None:
            assert both[0] == both[1], query
            hits += sum(score > 0 for score in both[0])
    assert hits > 100


def distance(a: str, b: str) -> int:
    """Edits from one word to another, a swap of neighbours as one: the textbook's table."""
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            cost = int(a[i - 1] != b[j - 1])
            best = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + cost]
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                best.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(best)
    return int(table[-1, -1])


def test_near_words_are_all_those_within_so_many_edits(page: Page) -> None:
    rng = np.random.default_rng(3)
    words = sorted({"".join(rng.choice(list("abcd"), int(n))) for n in rng.integers(1, 9, 400)})
    asked = ["".join(rng.choice(list("abcde"), int(n))) for n in rng.integers(4, 9, 25)]
    found = page.evaluate(
        """([words, asked]) => {
            const vocabulary = new WA.Vocabulary(), text = words.join(" ");
            WA.eachWord(text, (start, end, hash) => vocabulary.number(text, start, end, hash));
            return asked.map((word) => [1, 2].map((limit) => vocabulary.near(word, limit)
                .map((one) => [one.text, one.distance, one.begins])));
        }""",
        [words, asked],
    )
    some = 0
    for word, both in zip(asked, found, strict=True):
        for limit, near in enumerate(both, 1):
            wanted = {other: distance(word, other) for other in words}
            wanted = {other: n for other, n in wanted.items() if n <= limit}
            if wanted:
                assert {text: n for text, n, begins in near if not begins} == wanted
                assert [n for _, n, _ in near] == sorted(wanted.values())
                some += 1
            else:
                assert all(
                    begins and distance(word, text[: len(word)]) <= limit
                    for text, _, begins in near
                )
    assert some > 10


def test_words_are_numbered_once_and_found_by_their_parts(page: Page) -> None:
    rng = np.random.default_rng(5)
    texts = [text for text in made_up(rng, 300) if text]
    found = page.evaluate(
        """(texts) => {
            const vocabulary = new WA.Vocabulary(), folded = texts.map(WA.fold), cut = [];
            for (const text of folded) {
                WA.eachWord(text, (start, end, hash) => {
                    cut.push([text.slice(start, end), vocabulary.number(text, start, end, hash)]);
                });
            }
            const parts = ["a", "ab", "b_", "c", "0", "月"];
            return { folded, cut, size: vocabulary.size,
                held: parts.map((part) => [part, vocabulary.holding(part)]) };
        }""",
        texts,
    )
    numbers = dict(found["cut"])
    assert len(numbers) == found["size"] == len(set(numbers.values()))
    assert all(numbers[word] == number for word, number in found["cut"])
    for raw, folded in zip(texts, found["folded"], strict=True):
        plain = unicodedata.normalize("NFKD", raw)
        assert folded == re.sub(r"[\u0300-\u036f]", "", plain).lower()
    words = [word for text in found["folded"] for word in re.findall(r"\w+|[^\w\s]+", text)]
    assert [word for word, _ in found["cut"]] == words
    for part, held in found["held"]:
        wanted = {
            number: 0 if word == part else 1 if word.startswith(part) else 2
            for word, number in numbers.items()
            if part in word
        }
        assert dict(zip(held["numbers"], held["places"], strict=True)) == wanted
        assert wanted


def test_the_best_rows_are_those_of_a_full_sort(page: Page) -> None:
    rng = np.random.default_rng(6)
    first = rng.integers(0, 5, 500).tolist()
    second = rng.integers(0, 5, 500).tolist()
    for most in (1, 7, 40, 600):
        found = page.evaluate(
            """([first, second, most]) => {
                const index = new WA.Index();
                index.size = first.length;
                return index.top(most, (row) => row % 3 > 0, first, second);
            }""",
            [first, second, most],
        )
        rows = [row for row in range(500) if row % 3]
        rows.sort(key=lambda row: (-first[row], -second[row], row))
        assert found == {"rows": rows[:most], "n": len(rows)}
