"""How does a document's text become HTML with one mark per token, and nothing hidden in it?

The one place that turns text from outside into markup. :func:`visible` escapes and puts a box with
the code point in place of every character that cannot be seen or that rearranges others (control,
bidirectional, zero-width, tag, filler, private-use characters). :func:`plain` does the same without
markup, for attributes, titles and data files.

Tokens are written by one function, not by a template's loop, with escapes cached by token: pages
hold thousands of them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from builder.records import ACTIVATION_SCALE, ROLES, Example, Window

#: Steps of colour on each side of the neutral one.
STEPS = 7
#: Share of the way from the centre to either end that stays without colour.
NEUTRAL = 0.15
#: Steps from here on are strong: their activations are named in a title.
STRONG = 4
#: A longer token is cut in the middle; how much is missing is said in its place.
LONGEST_TOKEN = 400
#: A longer label is cut at its end in lists; its direction's page has all of it.
LONGEST_LABEL = 160
#: The same for what a labeler remarks: why it chose a label, or what was wrong with its answer.
LONGEST_REMARK = 600

_PICTURE = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2934\u2935"
    "\u2b05-\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
#: The last two places of a plane are no characters; those of planes not named here are in ranges.
_LAST = (0xFFFE, 0xFFFF)
_NO_CHARACTERS = "".join(chr(plane << 16 | last) for plane in range(1, 14) for last in _LAST)
#: Characters that cannot be seen, or that change what others look like. Emoji joiners and emoji
#: variation selectors are let through where they do what they are for.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u2000-\u200c\u200e\u200f\u2028-\u202f\u205f-\u206f\u2800\u3164\ufe00-\ufe0e\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\U0001bca0-\U0001bca3"
    f"\U0001d173-\U0001d17a\U00013430-\U0001345f{_NO_CHARACTERS}\U000e0000-\U0010ffff]"
    f"|(?<![{_PICTURE}\ufe0f])\u200d|\u200d(?![{_PICTURE}])"
    f"|(?<![{_PICTURE}0-9#*])\ufe0f"
)


def _named(character: str) -> str:
    return f"U+{ord(character):04X}"


def plain(text: str) -> str:
    """``text`` with every hidden character named: ``⟦U+202E⟧``. Not escaped: plain text."""
    # Most texts are; asking takes a quarter of the search.
    if text.isascii() and text.isprintable():
        return text
    return HIDDEN.sub(lambda match: f"⟦{_named(match[0])}⟧", text)


def marked_hidden(text: str) -> str:
    """``text`` with every hidden character as its code point and name between two U+0000.

    For the pages' script, which puts boxes in their places: U+0000 itself is hidden, and so can
    stand nowhere else.
    """
    return HIDDEN.sub(
        lambda match: f"\0{_named(match[0])} {unicodedata.name(match[0], '')}".rstrip() + "\0", text
    )


def _box(match: re.Match[str]) -> str:
    name = unicodedata.name(match[0], "")
    title = f' title="{escape(name)}"' if name else ""
    return f"<b class=cc{title}>{_named(match[0])}</b>"


@lru_cache(maxsize=65536)
def _token_html(text: str) -> str:
    # Escaping first is safe: it adds no hidden character and removes none. Tokens stand between
    # tags, never in attributes, so quotes may stay as they are.
    return HIDDEN.sub(_box, escape(text, quote=False))


def _shortened(text: str) -> str:
    """A token as HTML; one that is too long without its middle, which is not worth caching."""
    if len(text) <= LONGEST_TOKEN:
        return _token_html(text)
    head, missing, tail = _without_middle(text)
    head, tail = (HIDDEN.sub(_box, escape(part, quote=False)) for part in (head, tail))
    return f"{head}<b class=cc>{missing}</b>{tail}"


def marked_token(text: str) -> str:
    """What :func:`marked_hidden` gives for a token; a too long one without its middle."""
    if len(text) <= LONGEST_TOKEN:
        return marked_hidden(text)
    head, missing, tail = _without_middle(text)
    return f"{marked_hidden(head)}\0{missing}\0{marked_hidden(tail)}"


def _without_middle(text: str) -> tuple[str, str, str]:
    kept = LONGEST_TOKEN // 4
    return text[:kept], f"{len(text) - 2 * kept} more characters", text[-kept:]


def brief(text: str, longest: int = LONGEST_LABEL) -> str:
    """``text`` in at most ``longest`` characters: a longer one ends in an ellipsis.

    Cut between two words where that loses little: cut elsewhere, an accent may lose its letter.
    """
    if len(text) <= longest:
        return text
    words = text[:longest].rpartition(" ")[0]
    kept = words if len(words) > 0.8 * longest else text[: longest - 1]
    return kept.rstrip() + "…"


def visible(text: str) -> Markup:
    """``text`` as HTML: escaped, each hidden character in a box that names it."""
    return Markup(HIDDEN.sub(_box, escape(text)))


@dataclass(frozen=True, slots=True)
class Scale:
    """What the colours of one direction's pages mean.

    Around ``centre`` nothing is coloured, up to NEUTRAL of the way to either end; the rest of the
    way has seven even steps, to ``high`` in orange and to ``low`` in blue. Activations beyond
    either end get its last step.
    """

    low: float
    centre: float
    high: float

    def steps(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Steps from -7 to 7 for activations of any shape."""
        offset = values - self.centre
        size = np.where(offset >= 0, self.high - self.centre, self.centre - self.low)
        part = np.divide(np.abs(offset), size, out=np.zeros_like(offset), where=size > 1e-9)
        # A hair less, so that the very end is in the last step and not rounded beyond it.
        step = np.ceil((part - NEUTRAL) / (1 - NEUTRAL) * STEPS - 1e-6)
        signed: npt.NDArray[np.float64] = np.sign(offset) * np.clip(step, 0, STEPS)
        return signed.astype(np.int64)

    def value_at(self, step: int) -> float:
        """The activation in the middle of a step."""
        if step == 0:
            return self.centre
        side = self.high - self.centre if step > 0 else self.low - self.centre
        return self.centre + side * (NEUTRAL + (abs(step) - 0.5) * (1 - NEUTRAL) / STEPS)


@dataclass(frozen=True, slots=True)
class Pieces:
    """A window's text cut into pieces of at least one token and, where it goes, one character.

    Tokens that hold a part of a character only share the piece of that character. Piece i is
    ``text[starts[i]:ends[i]]`` and holds the tokens ``firsts[i]`` to ``lasts[i]``.
    """

    text: str
    starts: list[int]
    ends: list[int]
    firsts: list[int]
    lasts: list[int]

    @classmethod
    def of(cls, window: Window) -> Pieces:
        """The pieces of a window."""
        bounds = np.minimum(np.maximum.accumulate(window.token_ends), len(window.text)).tolist()
        starts = [0, *bounds][: len(bounds)]
        tokens = range(len(bounds))
        if all(start < end for start, end in zip(starts, bounds, strict=True)):
            return cls(window.text, starts, bounds, list(tokens), list(tokens))
        pieces = cls(window.text, [], [], [], [])
        for token, start, end in zip(tokens, starts, bounds, strict=True):
            empty = pieces.ends and pieces.starts[-1] == pieces.ends[-1]
            if pieces.ends and (start == end or empty):
                pieces.ends[-1], pieces.lasts[-1] = end, token
            else:
                pieces.starts.append(start)
                pieces.ends.append(end)
                pieces.firsts.append(token)
                pieces.lasts.append(token)
        return pieces

    @staticmethod
    def text_at(window: Window, token: int) -> str:
        """The text of one token of a window, or of the character that it is a part of."""
        ends, n = np.minimum(window.token_ends, len(window.text)), len(window.token_ends)
        if not 0 <= token < n:
            return ""
        first = token
        while first and ends[first - 1] == ends[first]:
            first -= 1
        start = int(ends[first - 1]) if first else 0
        # Tokens before the first character share it.
        while token + 1 < n and ends[token] == start:
            token += 1
        return window.text[start : int(ends[token])]


def near_peak(example: Example, context: int) -> Example:
    """The example with at most ``context`` tokens on each side of its peak.

    A little more where a cut would tear tokens apart that hold parts of one character.
    """
    ends, n = example.window.token_ends, len(example.activations)
    first, last = max(0, example.peak - context), min(n - 1, example.peak + context)
    while first > 0 and ends[first] == ends[first - 1]:
        first -= 1
    while last + 1 < n and ends[last + 1] == ends[last]:
        last += 1
    if first == 0 and last == n - 1:
        return example
    part, base = slice(first, last + 1), example.base_activations
    # Not dataclasses.replace(), which takes longer than all the rest.
    return Example(
        direction=example.direction,
        role=example.role,
        pole=example.pole,
        place=example.place,
        value=example.value,
        peak=example.peak - first,
        duplicates=example.duplicates,
        window=example.window.part(first, last + 1 - first),
        activations=example.activations[part],
        roles=example.roles[part],
        base_activations=None if base is None else base[part],
        repeats=example.repeats,
    )


def highlight(example: Example, scale: Scale) -> Markup:
    """The window of an example as HTML, every token in the colour of its activation.

    Where roles differ within the window, each stretch of one role is a span with the role's name
    as ``data-r``. The text content is the window's text with hidden characters named and oversized
    tokens shortened. Strong tokens, and pieces of several tokens, have activations as ``title``.
    """
    pieces, peak = Pieces.of(example.window), example.peak
    text = pieces.text
    values = example.activations.astype(np.float64) / ACTIVATION_SCALE
    steps = scale.steps(values).tolist()
    roles = example.roles.tolist()
    mixed = len(set(roles)) > 1
    written: list[str] = []
    role = -1
    for start, end, first, last in zip(
        pieces.starts, pieces.ends, pieces.firsts, pieces.lasts, strict=True
    ):
        if mixed and roles[first] != role:
            role = roles[first]
            written.append(f"{'</span>' if written else ''}<span data-r={ROLES[role]}>")
        token = text[start:end]
        content = _shortened(token)
        strongest = first
        if first != last:
            own = range(first, last + 1)
            strongest = peak if peak in own else max(own, key=lambda index: abs(steps[index]))
        step = steps[strongest]
        if strongest != peak and not step:
            written.append(content)
            continue
        opening = _OPENINGS[step] if strongest != peak else _PEAKS[step]
        if abs(step) >= STRONG or first != last or strongest == peak:
            title = "/".join(_value(values[index]) for index in range(first, last + 1))
            opening = f"{opening[:-1]} title={title}>"
        if "\n" in token and token.isspace():
            content = f"<b class=nl></b>{content}"
        written.append(f"{opening}{content}</i>")
    written.append("</span>" if role >= 0 else "")
    covered = pieces.ends[-1] if pieces.ends else 0
    return Markup("".join(written) + _shortened(text[covered:]))


def _value(value: float) -> str:
    """Three decimals without the leading zero, as an attribute that needs no quotes."""
    text = f"{value:+.3f}".replace("0.", ".", 1)
    return "0" if float(text) == 0 else text


def _class_of(step: int) -> str:
    return f"{'p' if step > 0 else 'n'}{abs(step)}" if step else ""


_OPENINGS = {step: f"<i class={_class_of(step)}>" for step in range(-STEPS, STEPS + 1)}
_PEAKS = {
    step: f'<i class="{f"{_class_of(step)} k".strip()}">' for step in range(-STEPS, STEPS + 1)
}
