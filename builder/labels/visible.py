"""How is text from outside shown on one line, with nothing hidden in it? By escapes one can see.

Corpus text goes into prompts, model replies into labels. Both may hold control characters, line
separators, zero-width and bidirectional marks, tag characters and unpaired surrogates, which hide
or reorder text or cannot be encoded at all.
"""

from __future__ import annotations

import re
import unicodedata

#: Letters and marks that take no ink although their category says they do.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
#: Selectors that real emoji use; all other variation selectors can carry hidden data.
_EMOJI_SELECTORS = frozenset("\ufe0e\ufe0f")
_HIDDEN_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))


def is_hidden(character: str) -> bool:
    """Whether a character is invisible, reorders text, or cannot be encoded."""
    code = ord(character)
    if code < 0x20 or 0x7F <= code <= 0xA0:
        return code != 0xA0
    if code < 0xAD:
        return False
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return character not in _EMOJI_SELECTORS
    return character in _BLANK or unicodedata.category(character) in _HIDDEN_CATEGORIES


def visible(text: str) -> str:
    r"""The text on one line: line breaks as ⏎, tabs as ⇥, hidden characters as ``\u{200b}``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_seen(character) for character in text.replace("\r\n", "\n"))


def _seen(character: str) -> str:
    if character in "\r\n":
        return "⏎"
    if character == "\t":
        return "⇥"
    return f"\\u{{{ord(character):x}}}" if is_hidden(character) else character


def one_line(text: str, longest: int) -> str:
    """The text without hidden characters, white space as single spaces, cut to ``longest``."""
    # Cut before the work as well: a reply or a word may be megabytes long.
    spaced = re.sub(r"\s+", " ", text[: 8 * longest])
    clean = "".join(character for character in spaced if not is_hidden(character)).strip()
    clean = re.sub(r" +", " ", clean)
    return clean if len(clean) <= longest else clean[: longest - 1].rstrip() + "…"
