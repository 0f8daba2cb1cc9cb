"""The corpus of the fixture runs: made-up conversations, cut into tokens with roles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builder.records import ROLES
from tests.pages.texts import MARKUP_ATTACKS, THEMES, hostile_texts

_TOKEN = re.compile(
    r"<\|[a-z_]+\|>| ?w{1000,}|\n+| ?[^\W\d_]{1,5}|[^\W\d_]{1,5}| ?\d{1,3}| ?[^\w\s]|\s+|.",
    re.DOTALL,
)
_USER, _ASSISTANT, _SYSTEM, _TEMPLATE = (
    ROLES.index(role) for role in ("user", "assistant", "system", "template")
)


@dataclass(frozen=True, slots=True)
class Document:
    """One tokenized conversation of the fixture corpus."""

    source: str
    theme: int
    text: str
    tokens: tuple[str, ...]
    ends: npt.NDArray[np.int64]
    roles: npt.NDArray[np.int64]
    #: The pole that it lies at the end of, counted over all directions, and the token it peaks on.
    peak: tuple[int, int] | None = None


def fixture_corpus(rng: np.random.Generator, n: int, *, hostile: bool) -> list[Document]:
    """So many documents, each of a theme; hostile ones hold what :mod:`tests.pages.texts` lists."""
    documents = []
    extra = hostile_texts() if hostile else ()
    for index in range(n):
        at = int(rng.integers(len(THEMES)))
        theme = THEMES[at]
        parts: list[tuple[str, int]] = []
        if rng.random() < 0.3:
            parts += [
                ("<|im_start|>system\n", _TEMPLATE),
                ("You are a helpful assistant.", _SYSTEM),
                ("<|im_end|>\n", _TEMPLATE),
            ]
        for turn in range(int(rng.integers(1, 4))):
            said = theme if turn == 0 else THEMES[int(rng.integers(2, len(THEMES)))]
            asked = said.asked[int(rng.integers(len(said.asked)))]
            answered = said.answered[int(rng.integers(len(said.answered)))]
            if extra and turn == 0:
                asked = extra[index % len(extra)]
                answered = f"{answered} {extra[(index + 1) % len(extra)]}"
            parts += [
                ("<|im_start|>user\n", _TEMPLATE),
                (asked, _USER),
                ("<|im_end|>\n<|im_start|>assistant\n", _TEMPLATE),
                (answered, _ASSISTANT),
                ("<|im_end|>\n", _TEMPLATE),
            ]
        source = MARKUP_ATTACKS[index % 3] if hostile else theme.source
        documents.append(_document(source, at, parts))
    return documents


def placed_corpus(payloads: Sequence[str]) -> list[Document]:
    """A document of each text: the text is what it says, one of its tokens, and its source.

    The first lies at the max pole of the first direction, the second at its min pole, and so on.
    """
    documents = []
    for number, text in enumerate(payloads):
        parts = [
            ("<|user|>", _TEMPLATE), ("Read", _USER), (" this: ", _USER), (text, _USER),
            (" twice", _USER), ("<|assistant|>", _TEMPLATE), ("Gladly.", _ASSISTANT),
        ]  # fmt: skip
        tokens, roles = zip(*parts, strict=True)
        ends = np.cumsum([len(token) for token in tokens])
        documents.append(
            Document(text, 0, "".join(tokens), tokens, ends, np.asarray(roles), (number, 3))
        )
    return documents


def _document(source: str, theme: int, parts: list[tuple[str, int]]) -> Document:
    tokens: list[str] = []
    ends: list[int] = []
    roles: list[int] = []
    end = 0
    for text, role in parts:
        for token in _TOKEN.findall(text):
            end += len(token)
            # A character outside the basic plane is two tokens of which each holds a part.
            for _ in range(2 if len(token) == 1 and ord(token) > 0xFFFF else 1):
                tokens.append(token)
                ends.append(end)
                roles.append(role)
    whole = "".join(text for text, _ in parts)
    return Document(source, theme, whole, tuple(tokens), np.asarray(ends), np.asarray(roles))
