"""What a reader sees of a text on a page, against what the text is.

Written without the code that writes pages: what is hidden is decided by Unicode categories here.
"""

from __future__ import annotations

import re
import unicodedata

#: Of each element: its texts in order, each with whether it is a box that names what is not shown.
PARTS = """(elements) => elements.map((element) => {
    const parts = [];
    const read = (node) => {
        for (const child of node.childNodes) {
            if (child.nodeType === Node.TEXT_NODE) parts.push([child.data, false]);
            else if (child.matches(".cc")) parts.push([child.textContent, true]);
            else if (child.nodeType === Node.ELEMENT_NODE) read(child);
        }
    };
    read(element);
    return parts;
})"""

Parts = list[tuple[str, bool]]
_NAME = re.compile(r"U\+([0-9A-F]{4,6})")
_NAMED = re.compile(r"⟦U\+([0-9A-F]{4,6})⟧")
_MISSING = re.compile(r"([0-9]+) more characters")
#: Blank, though their categories are those of letters, marks and symbols.
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    "\U0001d173\U0001d174\U0001d175\U0001d176\U0001d177\U0001d178\U0001d179\U0001d17a"
)
#: Formats that are drawn: signs over or around Arabic and Kaithi numbers.
_DRAWN = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2\U000110bd\U000110cd"
)


def named(text: str) -> str:
    """A text of attributes and data files, with the characters that it names."""
    return _NAMED.sub(lambda match: chr(int(match[1], 16)), text)


def hidden_in(text: str) -> set[str]:
    """The characters of a text that cannot be seen in it."""
    return {
        character
        for at, character in enumerate(text)
        if _is_hidden(character, text[at - 1 : at], text[at + 1 : at + 2])
    }


def _is_hidden(character: str, before: str, after: str) -> bool:
    if character in "\n\t" or character in _DRAWN:
        return False
    if character == "\u200d":  # joins two pictures into one
        return not (_is_picture(before) and _is_picture(after))
    if character == "\ufe0f":  # makes a sign a picture
        return not before or unicodedata.category(before)[0] not in "SNP"
    if "\ufe00" <= character <= "\ufe0e" or "\U000e0100" <= character <= "\U000e01ef":
        return True
    category = unicodedata.category(character)
    if category == "Cn":  # drawn as an empty box, unless it is no character and never will be
        code = ord(character)
        return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return character in _BLANK or category[0] == "C" or category in ("Zl", "Zp")


def _is_picture(character: str) -> bool:
    return bool(character) and (character == "\ufe0f" or unicodedata.category(character)[0] == "S")


def fault(parts: Parts, text: str, *, in_names: bool = False) -> str:
    """Why these parts do not show a text; empty if they do.

    They do when they are it, character by character, with a box for each hidden one that names it
    and one for a left out middle that says how long it is. A label that was cut ends in an
    ellipsis. ``in_names``: what is hidden is named in brackets and not in boxes.
    """
    at, shown = 0, ""
    text = named(text) if in_names else text
    for said, is_box in parts:
        if not is_box:
            shown += said
            letters = named(said) if in_names else said
            if letters.endswith("…") and text[at : at + len(letters)] != letters:
                cut = letters.removesuffix("…")
                long_enough = at + len(cut) >= 100 and text[at:].startswith(cut)
                return (
                    ""
                    if long_enough
                    else f"{letters[-40:]!r} is no beginning of {text[at:][:40]!r}"
                )
            if text[at : at + len(letters)] != letters:
                return f"{letters[:60]!r} stands for {text[at : at + len(letters)][:60]!r}"
            at += len(letters)
        elif match := _NAME.fullmatch(said):
            shown += said
            if text[at : at + 1] != chr(int(match[1], 16)):
                return f"a box {said} stands for {text[at : at + 1]!r}"
            at += 1
        elif match := _MISSING.fullmatch(said):
            at += int(match[1])
        else:
            return f"a box says {said!r}"
    if at != len(text):
        return f"{text[at:][:60]!r} is missing at its end"
    unseen = hidden_in(shown)
    return f"{unseen} can be seen nowhere" if unseen else ""
