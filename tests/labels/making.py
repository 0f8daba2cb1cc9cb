"""Examples and random documents for the tests of the labelers, from a seeded made-up language."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import numpy as np

from builder.labels.evidence import Background, Evidence
from builder.records import ACTIVATION_SCALE, ROLES, Example, Pole, Window

_SYLLABLES = re.findall("..", "badefigokulameniporusatewiwoxayezo")
_RNG = random.Random(7)
#: Words of the made-up language, the first ones common and the last ones rare.
VOCABULARY = tuple(
    dict.fromkeys("".join(_RNG.choices(_SYLLABLES, k=_RNG.randint(1, 4))) for _ in range(5000))
)
#: As in a real language, the word of rank r has a frequency near 1 / r.
_FREQUENCIES = tuple(1 / (rank + 3) for rank in range(len(VOCABULARY)))


def text_of(rng: random.Random, words: int = 60) -> str:
    """A random text with sentences, a number now and then, and commas."""
    found: list[str] = []
    for word in rng.choices(VOCABULARY, _FREQUENCIES, k=words):
        end = rng.choices(("", ",", ".", f" {rng.randint(1, 99)}"), (86, 6, 6, 2))[0]
        starts = not found or found[-1].endswith(".")
        found.append((word.capitalize() if starts else word) + end)
    return " ".join(found)


def token_ends(text: str) -> list[int]:
    """Ends of tokens of up to five letters, with the space before them, as a tokenizer makes."""
    ends = [match.end() for match in re.finditer(r" ?\w{1,5}|\s|[^\w\s]", text)]
    return ends if ends and ends[-1] == len(text) else [*ends, len(text)]


def window_of(text: str, doc_id: int = 0) -> Window:
    """A window that is the whole text."""
    return Window(doc_id, "made up", 0, text, np.array(token_ends(text), dtype=np.uint32))


def example_of(
    text: str,
    peak: str | int | None = None,
    *,
    doc_id: int = 0,
    place: int = 0,
    pole: Pole = "max",
    template: Sequence[str] = (),
) -> Example:
    """An example whose peak is on the token with the last character of ``peak``.

    ``peak`` is a substring, a token index, or None for the token in the middle. Tokens inside the
    substrings ``template`` have the role template.
    """
    window = window_of(text, doc_id)
    ends = window.token_ends.tolist()
    if isinstance(peak, str):
        last = text.index(peak) + len(peak) - 1
        token = next(index for index, end in enumerate(ends) if end > last)
    else:
        token = len(ends) // 2 if peak is None else peak
    sign = 1 if pole == "max" else -1
    rng = np.random.default_rng(doc_id)
    activations = (sign * rng.uniform(-0.1, 0.1, len(ends)) * ACTIVATION_SCALE).astype(np.int16)
    activations[token] = round(sign * 0.6 * ACTIVATION_SCALE)
    roles = np.full(len(ends), ROLES.index("user"), dtype=np.uint8)
    for part in template:
        start = text.index(part)
        for index, end in enumerate(ends):
            if start < end <= start + len(part):
                roles[index] = ROLES.index("template")
    value = sign * 0.6
    return Example(
        "L00.o_proj.u00", "any", pole, place, value, token, 0, window, activations, roles
    )


def background_of(seed: int = 0, documents: int = 400, words: int = 60) -> Background:
    """Random documents as a reservoir."""
    rng = random.Random(seed)
    return Background.from_windows(
        window_of(text_of(rng, words), doc_id) for doc_id in range(documents)
    )


def evidence_of(
    plant: Callable[[random.Random, str], tuple[str, str | None]],
    *,
    n: int = 20,
    planted: int | None = None,
    seed: int = 1,
    words: int = 60,
    contrast: Callable[[random.Random, str], tuple[str, str | None]] | None = None,
    promoted: tuple[str, ...] = (),
) -> Evidence:
    """A max pole with ``n`` examples; ``plant`` makes (text, peak) from a random text.

    Only the first ``planted`` examples are planted. The other pole has random texts, or what
    ``contrast`` makes of them.
    """
    rng = random.Random(seed)
    examples = []
    for place in range(n):
        text, peak = text_of(rng, words), None
        if planted is None or place < planted:
            text, peak = plant(rng, text)
        examples.append(example_of(text, peak, doc_id=10_000 + place, place=place))
    others = []
    for place in range(n):
        text, peak = text_of(rng, words), None
        if contrast is not None:
            text, peak = contrast(rng, text)
        others.append(example_of(text, peak, doc_id=20_000 + place, place=place, pole="min"))
    return Evidence("L00.o_proj.u00", "max", tuple(examples), tuple(others), promoted)


def insert(rng: random.Random, text: str, phrase: str) -> tuple[str, str]:
    """The text with a phrase at a random place between its words, and the phrase as its peak."""
    words = text.split(" ")
    at = rng.randint(5, len(words) - 5)
    return " ".join([*words[:at], phrase, *words[at:]]), phrase


def plain(rng: random.Random, text: str) -> tuple[str, str | None]:
    """The random text as it is, with its peak on a random word."""
    return text, rng.choice(text.split(" "))
