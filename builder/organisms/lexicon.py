"""What words the small world has, and how a sentence with slots becomes a sentence.

The words are in ``words.toml`` and the topics in ``topics.toml``, beside this module. A sentence
may hold slots such as ``{person}`` or ``{person2}``; within one document a slot keeps its word, so
that a story stays with its hero. Nothing here depends on anything but the ``random.Random`` handed
in.
"""

from __future__ import annotations

import functools
import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

T = TypeVar("T")
_SLOT = re.compile(r"\{([a-z]+)(\d?)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio])")


@dataclass(frozen=True, slots=True)
class Topic:
    """One subject of the world: its nouns, its place and what is said about it (slots unfilled)."""

    name: str
    about: str
    things: tuple[str, ...]
    place: str
    qa: tuple[tuple[str, str], ...]
    tips: tuple[str, ...]
    howto: tuple[tuple[str, ...], ...]
    trouble: tuple[tuple[str, str], ...]


def _load_toml(name: str) -> dict[str, Any]:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return tomllib.loads(text)


@functools.cache
def words() -> dict[str, tuple[str, ...]]:
    """The word list of every slot, in file order."""
    return {slot: tuple(choices) for slot, choices in _load_toml("words.toml").items()}


@functools.cache
def topics() -> tuple[Topic, ...]:
    """All topics, in file order."""
    return tuple(
        Topic(
            name=name,
            about=entry.get("about", name),
            things=tuple(entry["things"]),
            place=entry["place"],
            qa=tuple((question, answer) for question, answer in entry["qa"]),
            tips=tuple(entry["tips"]),
            howto=tuple(tuple(steps) for steps in entry["howto"]),
            trouble=tuple((complaint, advice) for complaint, advice in entry["trouble"]),
        )
        for name, entry in _load_toml("topics.toml").items()
    )


class Draw:
    """The draws of one document: a random source, and the words its slots are bound to."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._bound: dict[str, str] = {}

    def pick(self, choices: Sequence[T]) -> T:
        """One of ``choices``, uniformly."""
        return choices[self.rng.randrange(len(choices))]

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """``count`` different members of ``choices``, in random order."""
        return self.rng.sample(list(choices), count)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def word(self, slot: str) -> str:
        """The word bound to ``slot`` in this document; numbered slots differ from the plain one."""
        if slot not in self._bound:
            kind = slot.rstrip("0123456789")
            taken = {
                word for name, word in self._bound.items() if name.rstrip("0123456789") == kind
            }
            free = [word for word in words()[kind] if word not in taken]
            self._bound[slot] = self.pick(free)
        return self._bound[slot]

    def fill(self, text: str) -> str:
        """``text`` with its slots filled, and ``a`` turned into ``an`` where it has to be."""
        filled = _SLOT.sub(lambda match: self.word(match.group(1) + match.group(2)), text)
        return _ARTICLE.sub(r"\1n ", filled)

    def fresh(self) -> Draw:
        """Another document's draws from the same random source: no slot is bound yet."""
        return Draw(self.rng)


def a(noun: str) -> str:
    """``noun`` with its indefinite article."""
    if noun.startswith(("pair of", "box of")) or noun[0] not in "aeio":
        return f"a {noun}"
    return f"an {noun}"


def listed(items: Sequence[str]) -> str:
    """The items as English prose: ``a, b and c``."""
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + " and " + items[-1]


def capital(text: str) -> str:
    """``text`` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def small(text: str) -> str:
    """``text`` with its first letter in lower case, unless it is a name or the word I."""
    first = re.split(r"[\s,']", text, maxsplit=1)[0]
    keep = first == "I" or first in words()["person"] or first in words()["place"]
    return text if keep or first in words()["day"] else text[:1].lower() + text[1:]
