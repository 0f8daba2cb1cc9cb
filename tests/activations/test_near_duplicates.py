"""What is one text to a reader is one cluster, and nothing else is."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.activations import near_duplicates
from builder.activations.corpus import Document, Message
from builder.activations.near_duplicates import SLOTS, band_width, parents, roots, sketches
from tests import micro

PROMPT = (
    "A cinematic photograph of {}, soft golden light falling through tall windows, shallow depth "
    "of field, 35mm film grain, muted colours, a quiet mood, carefully composed with leading "
    "lines, high detail, award winning portrait style in the manner of the old masters. Keep the "
    "skin natural, avoid text and watermarks, leave room above the head, let the background fall "
    "into a warm blur, and make the shadows blue rather than black."
)
#: The first slots of three texts.
PINNED = [[20015, 12202, 1040, 59256], [15094, 41606, 1966, 42557], [36185, 22093, 29947, 57460]]


def texts(*said: str) -> list[Document]:
    return [Document(number, "s", text=text) for number, text in enumerate(said)]


def clusters(documents: list[Document], threshold: float = 0.8) -> list[int]:
    table = sketches(documents)
    rows = np.arange(len(documents), dtype=np.int64)
    return roots(parents(table, rows, 0, threshold)).tolist()  # type: ignore[no-any-return]


def test_a_template_with_other_slots_is_one_cluster() -> None:
    slots = ["a red fox", "an old man", "the city at night", "seven green seas", "nobody"]
    assert clusters(texts(*(PROMPT.format(slot) for slot in slots))) == [0] * 5


def test_chats_that_share_a_system_prompt_are_not_alike() -> None:
    rng = random.Random(0)
    system = Message("system", micro.sentence(rng, 400))
    chats = [
        Document(
            number,
            "s",
            messages=(
                system,
                Message("user", micro.sentence(rng, 12)),
                Message("assistant", micro.sentence(rng, 30)),
            ),
        )
        for number in range(8)
    ]
    assert clusters(chats) == list(range(8))


def test_system_messages_count_where_there_is_nothing_else() -> None:
    rng = random.Random(0)
    one, two = micro.sentence(rng, 40), micro.sentence(rng, 40)
    alone = [
        Document(0, "s", messages=(Message("system", one),)),
        Document(1, "s", messages=(Message("system", two), Message("user", " "))),
        Document(2, "s", messages=(Message("system", one + " Now."), Message("user", ""))),
    ]
    assert clusters(alone) == [0, 1, 0]


def test_tool_calls_tell_chats_apart() -> None:
    def chat(number: int, city: str) -> Document:
        call = f'{{"tool_calls": [{{"function": {{"name": "look", "arguments": "{city}"}}}}]}}'
        return Document(
            number, "s", messages=(Message("user", "look"), Message("assistant", "", call))
        )

    rng = random.Random(0)
    assert clusters([chat(n, micro.sentence(rng, 20)) for n in range(3)]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("one", "two", "alike"),
    [
        ("Hello there, my friend!", "hello there  my friend", True),
        ("The capital of France is Paris.", "The capital of Italy is Rome.", False),
        ("yes", "no", False),
        ("!!!", "???", False),
        ("🙂", "🙂", True),
        ("今天天气很好，我们一起去公园散步吧，然后回家吃晚饭，看一部老电影。" * 2,) * 2 + (True,),
        (
            "今天天气很好，我们一起去公园散步吧，然后回家吃晚饭，看一部老电影。",
            "昨夜の雨は冷たくて、駅まで歩く道がとても長く感じられました。",
            False,
        ),
    ],
)
def test_short_texts_and_scripts_without_spaces_are_compared(
    one: str, two: str, alike: bool
) -> None:
    assert clusters(texts(one, two)) == [0, 0 if alike else 1]


def test_only_the_beginning_of_a_huge_text_is_compared() -> None:
    rng = random.Random(0)
    long = " ".join(str(rng.random()) for _ in range(50_000))
    assert clusters(texts(long, long + " and more" * 50_000)) == [0, 0]


def test_no_text_is_too_odd_to_be_sketched() -> None:
    odd = ["\x00", "\n" * 9, "\u200b", "a" * 100_000, "\U0010ffff", "İ" * 20, "\u0301"]
    assert sketches(texts(*odd)).shape == (len(odd), SLOTS)


@given(st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_sketches_do_not_depend_on_the_company(said: list[str]) -> None:
    documents = texts(*said)
    alone = np.concatenate([sketches([document]) for document in documents])
    np.testing.assert_array_equal(sketches(documents), alone)


def test_sketches_stay_what_they_were() -> None:
    # Sketches of earlier parts are compared with those of later ones: by any machine and version.
    table = sketches(texts(PROMPT, "hello", "今天天气很好，我们一起去公园散步吧"))
    assert table[:, :4].tolist() == PINNED


def test_the_estimate_is_that_of_the_word_triples() -> None:
    rng = random.Random(0)
    errors = []
    for _ in range(200):
        words = [f"w{rng.random()}" for _ in range(rng.choice([20, 60, 200]))]
        other = list(words)
        for _ in range(rng.randrange(6)):
            other[rng.randrange(len(other))] = f"x{rng.random()}"
        one, two = ({*zip(w, w[1:], w[2:], strict=False)} for w in (words, other))
        # What \w+ finds in these words is two of them; the dot is between words.
        joined = [" ".join(word.replace(".", "") for word in w) for w in (words, other)]
        table = sketches(texts(*joined))
        errors.append((table[0] == table[1]).mean() - len(one & two) / len(one | two))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05


def by_hand(table: npt.NDArray[np.uint16], threshold: float) -> list[int]:
    """The lowest earlier document that shares a band and is alike, of the first of each bucket."""
    width = band_width(threshold)
    found = []
    for number in range(len(table)):
        candidates: set[int] = set()
        for band in range(SLOTS // width):
            part = slice(band * width, (band + 1) * width)
            bucket = [n for n in range(number) if (table[n, part] == table[number, part]).all()]
            candidates.update(bucket[: near_duplicates._FIRST_OF_BUCKET])
        alike = [n for n in candidates if (table[n] == table[number]).mean() >= threshold]
        found.append(min(alike, default=number))
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_parents_are_those_that_a_plain_loop_finds(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_CHUNK", 17)
    rng = np.random.default_rng(0)
    table = rng.integers(0, 2**16, (150, SLOTS)).astype(np.uint16)
    for row in range(1, len(table)):  # families of drifting copies
        source = table[rng.integers(0, row)]
        copied = rng.random(SLOTS) < rng.choice([0.0, 0.5, 0.85, 1.0])
        table[row, copied] = source[copied]
    rows = np.arange(len(table), dtype=np.int64)
    wanted = by_hand(table, threshold)
    assert parents(table, rows, 0, threshold).tolist() == wanted
    assert sum(number != parent for number, parent in enumerate(wanted)) > 20
    for known in (1, 60, 150):
        found = parents(table, rows, known, threshold).tolist()
        assert found[:known] == list(range(known))
        assert found[known:] == wanted[known:]


def test_a_root_is_where_parents_lead() -> None:
    assert roots(np.array([0, 0, 1, 3, 2, 3, 4])).tolist() == [0, 0, 0, 3, 0, 3, 0]


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.8, 0.95, 1.0])
def test_bands_find_what_is_at_the_threshold(threshold: float) -> None:
    width = band_width(threshold)
    assert 1 - (1 - threshold**width) ** (SLOTS // width) >= 0.99
    assert (width == SLOTS) is (threshold == 1.0)
