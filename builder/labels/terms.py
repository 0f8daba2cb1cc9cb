"""Which terms does a text hold? Words, phrases, symbols and a few formats, with their places.

A *unit* is what the text is cut into: a word (of any script that separates words), one character of
a script that does not (Han, Hiragana, Thai, Lao, Khmer, Myanmar), a number, an emoji, a run of
punctuation, a line break, or the sign that begins an item of a list. A *term* is what is counted: a
unit, a phrase of neighbouring words (up to MAX_WORDS) or characters (up to MAX_CHARACTERS), or a
*format*, such as "numbers" or "Cyrillic script", which many different units share. Terms are
casefolded strings; those of formats begin with FORMAT_MARK, which no unit holds.

Tokens of the model play no part here: words are read from the text they make up.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Container, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

#: Words in the longest phrase.
MAX_WORDS = 3
#: Characters in the longest phrase of a script without spaces.
MAX_CHARACTERS = 4
#: Longer words (encoded data, addresses) are counted as a format, not one by one.
LONGEST_WORD = 40
#: First character of a format's term; units never hold control characters.
FORMAT_MARK = "\x01"
#: Stands for characters that are not to be read, one for one; ends every phrase.
GAP = "\x00"

LINE_BREAK = f"{FORMAT_MARK}line breaks"
NUMBERS = f"{FORMAT_MARK}numbers"
EMOJI = f"{FORMAT_MARK}emoji"
CAPITALS = f"{FORMAT_MARK}words in capitals"
LIST_ITEMS = f"{FORMAT_MARK}list items"
LONG_STRINGS = f"{FORMAT_MARK}long strings without spaces"

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u309f"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_EMOJI = (
    "\u203c\u2049\u2139\u231a-\u23ff\u25aa-\u25fe\u2600-\u27bf\u2934\u2935"
    "\u2b05-\u2b55\U0001f000-\U0001faff"
)
#: Invisible and control characters, private and unassigned areas: never part of a unit.
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff0-\ufffd\ud800-\udfff\ue000-\uf8ff\U000e0000-\U0010ffff"
)
_REPEATED = re.compile(r"(.)\1{3,}")


class Unit(NamedTuple):
    """One piece of a text: its term, its place [start, end), and its ties.

    ``glued``: forms a phrase with the unit before it; ``format``: the format it belongs to or "".
    """

    term: str
    start: int
    end: int
    glued: bool
    kind: str
    format: str


@cache
def _pattern() -> re.Pattern[str]:
    # The standard library's \w leaves out combining marks, which would cut Hindi or Tamil words.
    marks = _character_class("M", 0x300, 0x1E950)
    letter = rf"[^\W{_UNSPACED}{_EMOJI}]"
    part = f"{letter}(?:{letter}|[{marks}])*"
    key, flag = "[0-9#*]\ufe0f?\u20e3", "[\U0001f1e6-\U0001f1ff]{2}"
    emoji = f"[{_EMOJI}][\ufe0f\u20e3\U0001f3fb-\U0001f3ff]*"
    return re.compile(
        "|".join(
            (
                "(?P<line>\n+)",
                r"(?P<item>^[ \t]*(?:[-*•]|\d{1,3}[.)])(?=[ \t]))",
                f"(?P<emoji>{key}|{flag}|{emoji}(?:\u200d{emoji})*)",
                f"(?P<character>[{_UNSPACED}][{marks}]*)",
                rf"(?P<number>\d+(?:[.,]\d+)*(?![\w{marks}]))",
                f"(?P<word>{part}(?:['’-]{part})*)",
                rf"(?P<symbol>[^\s\w{marks}{_EMOJI}{_UNSEEN}]+)",
            )
        ),
        re.MULTILINE,
    )


def _character_class(category: str, first: int, last: int) -> str:
    """Ranges, for a regular expression, of the visible characters of a Unicode category."""
    unseen = re.compile(f"[{_UNSEEN}]")
    ranges: list[list[int]] = []
    for code in range(first, min(last, sys.maxunicode) + 1):
        if unicodedata.category(chr(code))[0] != category or unseen.match(chr(code)):
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges)


@lru_cache(maxsize=1024)
def units(text: str) -> tuple[Unit, ...]:
    """The units of a text in order; cached for the texts read last."""
    found: list[Unit] = []
    end_before, kind_before = -1, ""
    for match in _pattern().finditer(text):
        kind = match.lastgroup or ""
        start, end = match.span()
        term, form = _term_and_format(match.group(), kind)
        if kind in ("word", "number"):
            glued = kind_before in ("word", "number") and text[end_before:start] in (" ", "\xa0")
        else:
            glued = kind == "character" == kind_before and start == end_before
        found.append(Unit(term, start, end, glued, kind, form))
        end_before, kind_before = end, kind
    return tuple(found)


def _term_and_format(surface: str, kind: str) -> tuple[str, str]:
    if kind == "line":
        return LINE_BREAK, ""
    if kind == "item":
        return LIST_ITEMS, ""
    if kind == "number":
        return surface, NUMBERS
    if kind == "emoji":
        # Some keyboards add a variation selector and some do not: the same emoji.
        return surface.replace("\ufe0f", ""), EMOJI
    if kind == "symbol":
        return (surface if len(surface) < 4 else _REPEATED.sub(r"\1\1\1", surface)[:6]), ""
    if len(surface) > LONGEST_WORD:
        return LONG_STRINGS, ""
    if surface.isascii():
        return surface.lower(), ""
    term = unicodedata.normalize("NFC", surface).casefold()
    return term, _script(term[0])


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """The format of a script other than Latin; empty for Latin and for characters of none."""
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    if not name or name in ("LATIN", "FULLWIDTH", "MODIFIER", "FEMININE", "MASCULINE", "MICRO"):
        return ""
    if name in ("CJK", "IDEOGRAPHIC"):
        return f"{FORMAT_MARK}Chinese characters"
    return f"{FORMAT_MARK}{name.capitalize()} script"


def phrases(
    found: tuple[Unit, ...], keep: Container[str] | None = None
) -> Iterator[tuple[str, int, int]]:
    """Every phrase of two or more glued units, as (term, first unit, last unit).

    With ``keep``, only phrases all of whose units are in it.
    """
    for first, unit in enumerate(found):
        if keep is not None and unit.term not in keep:
            continue
        spaced = unit.kind != "character"
        longest = MAX_WORDS if spaced else MAX_CHARACTERS
        parts = [unit.term]
        for last in range(first + 1, min(first + longest, len(found))):
            following = found[last]
            if not following.glued or (keep is not None and following.term not in keep):
                break
            parts.append(following.term)
            yield (" " if spaced else "").join(parts), first, last


def formats(text: str, found: tuple[Unit, ...]) -> Iterator[tuple[str, int, int]]:
    """Every place of a format in a text, as (term, start, end) in characters."""
    previous: Unit | None = None
    for unit in found:
        if unit.format:
            yield unit.format, unit.start, unit.end
        if (
            previous is not None
            and unit.glued
            and _is_capital(text, previous)
            and _is_capital(text, unit)
        ):
            yield CAPITALS, previous.start, unit.end
        previous = unit


def _is_capital(text: str, unit: Unit) -> bool:
    return unit.end - unit.start > 1 and text[unit.start : unit.end].isupper()


def document_terms(text: str) -> set[str]:
    """Every term that a text holds at least once."""
    found = units(text)
    terms = {unit.term for unit in found}
    terms.update(term for term, _, _ in phrases(found))
    terms.update(term for term, _, _ in formats(text, found))
    return terms


def is_symbol(term: str) -> bool:
    """Whether a term is a run of punctuation or other signs, and no emoji or format."""
    if term.startswith(FORMAT_MARK) or any(character.isalnum() for character in term):
        return False
    return not is_emoji(term)


def is_emoji(term: str) -> bool:
    """Whether a term is an emoji."""
    match = _pattern().match(term)
    return match is not None and match.lastgroup == "emoji"
