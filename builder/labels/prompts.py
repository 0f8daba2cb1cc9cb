"""What does the explainer see? A prompt from templates, with hostile text fenced in.

Corpus text cannot leave its block, for three reasons. It is put on one line that begins with
``text: ``, while a block ends with a line of its own. ``[[``, which begins such a line, is broken
up inside text. And the line carries a code, a hash of everything shown, that nobody who wrote a
text can know. Marks, escapes and lengths are described in the system prompt itself.

The prompt says nothing of layer, rank or name of the direction, so that it is the same wherever the
same texts are shown, and neither the model nor the cache learns where it stands.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from builder.labels.evidence import Background, Evidence
from builder.labels.templates import prompt_templates, text_digest
from builder.labels.visible import visible
from builder.records import Example, Window

SYSTEM_TEMPLATE, USER_TEMPLATE = "explain.system.j2", "explain.user.j2"
NO_PATTERN = "no consistent pattern"
KINDS = ("topic", "format", "language", "style", "behaviour", "trigger-like", "artefact")
MAX_LABEL_WORDS = 10

#: Characters of one text, of one token in a list, and tokens in a list.
MAX_TEXT, MAX_TOKEN, MAX_TOKENS = 700, 40, 8
MAX_PROMOTED, MAX_SOURCES = 12, 5
#: Of the examples, so many are drawn for each candidate after the first.
SHARE = 0.7
#: Activations are shown as integers from 0 to this.
LEVELS = 10
#: Tokens with at least this share of their example's peak are marked.
MARKED = 0.6
OPEN, CLOSE, CUT = "«", "»", "…"

_ESCAPES = str.maketrans({OPEN: "\\u{ab}", CLOSE: "\\u{bb}"})


_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The two messages for one pole; ``hash`` (32 hex digits) stands for them and the templates.

    ``nonce`` is the code of the blocks; ``example_docs`` are all documents shown, contrast too.
    """

    system: str
    user: str
    hash: str
    nonce: str
    example_docs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One example as the prompt shows it: escaped text on one line, and its strongest tokens."""

    text: str
    activations: str = ""


def prompt_version() -> str:
    """Twelve hex digits that change with any change of the prompt templates."""
    return prompt_templates(SYSTEM_TEMPLATE, USER_TEMPLATE).version


def render_prompt(
    evidence: Evidence,
    background: Background,
    *,
    examples: int,
    contrast: int,
    candidate: int = 0,
) -> Prompt:
    """The explainer prompt for one pole; deterministic.

    The first candidate's ``examples`` are taken evenly over the ranks, the most extreme first;
    those of others are drawn from them (see :func:`sample`). Half of ``contrast`` are of the other
    pole, the rest random documents, those of known activation among them; picked by a hash of the
    examples, and documents among the pole's examples are left out.
    """
    templates = prompt_templates(SYSTEM_TEMPLATE, USER_TEMPLATE)
    chosen = sample(evidence.examples, examples, candidate)
    top = _top(chosen)
    shown = [show_example(example, top) for example in chosen]
    seed = text_digest(str(candidate), *(item.text for item in shown))
    opposite, weak, at_random = _contrast(evidence, background, contrast, seed)
    promoted = ", ".join(quoted(token) for token in evidence.promoted[:MAX_PROMOTED])
    sources = ", ".join(_source(*source) for source in evidence.sources[:MAX_SOURCES])
    groups = {
        "examples": shown,
        "opposite": [show_example(example, _top(opposite)) for example in opposite],
        "weak": [show_example(example, top) for example in weak],
        "random": [show_window(window) for window in at_random],
    }
    texts = [part for items in groups.values() for item in items for part in _parts(item)]
    nonce = nonce_of([templates.version, promoted, sources, *texts])
    values = {
        **groups,
        "nonce": nonce,
        "promoted": promoted,
        "sources": sources,
        "kinds": KINDS,
        "max_words": MAX_LABEL_WORDS,
        "no_pattern": NO_PATTERN,
    }
    system, user, digest = templates.render(values)
    seen = [example.window.doc_id for example in (*chosen, *opposite, *weak)]
    return Prompt(
        system=system,
        user=user,
        hash=digest,
        nonce=nonce,
        example_docs=tuple(dict.fromkeys([*seen, *(window.doc_id for window in at_random)])),
    )


def sample(examples: Sequence[Example], wanted: int, candidate: int) -> list[Example]:
    """At most ``wanted`` of the examples for a candidate, by place.

    The first candidate sees them spread evenly over the ranks. Each further one sees a random
    SHARE of them, so that candidates differ even where there are no more than wanted.
    """
    if not candidate:
        return spread(examples, wanted)
    n = min(wanted, math.ceil(SHARE * len(examples)))
    seed = text_digest(str(candidate), *(example.window.text for example in examples))
    kept = random.Random(seed).sample(range(len(examples)), n)
    return [examples[place] for place in sorted(kept)]


def spread(examples: Sequence[Example], wanted: int) -> list[Example]:
    """At most ``wanted`` of the examples, evenly over their order, the first included."""
    n = len(examples)
    if n <= wanted:
        return list(examples)
    return [examples[place * n // wanted] for place in range(wanted)]


def show_example(example: Example, top: int) -> Shown:
    """An example with its strongest tokens marked and listed; ``top`` is level 10 (int16)."""
    pieces = token_pieces(example.window)
    strength, marked = _strength(example), marked_tokens(example)
    first, last = around(pieces, example.peak, MAX_TEXT)
    text = with_marks(pieces[first:last], marked[first:last].tolist())
    if first:
        text = f"{CUT} {text}"
    if last < len(pieces):
        text = f"{text} {CUT}"
    if not top:
        return Shown(text)
    order = sorted(range(first, last), key=lambda token: (-int(strength[token]), token))
    levels = [
        f"{quoted(pieces[token], escaped=True)} {round(LEVELS * min(1.0, strength[token] / top))}"
        for token in order[:MAX_TOKENS]
        if marked[token] and pieces[token]
    ]
    return Shown(text, ", ".join(levels))


def _strength(example: Example) -> npt.NDArray[np.int64]:
    """Activation of each token towards the pole, 0 where it points the other way."""
    sign = 1 if example.pole == "max" else -1
    return np.maximum(example.activations.astype(np.int64) * sign, 0)


def marked_tokens(example: Example) -> npt.NDArray[np.bool_]:
    """Whether each token is marked: the peak, and what has MARKED of its activation."""
    strength = _strength(example)
    marked: npt.NDArray[np.bool_] = strength >= max(1.0, MARKED * int(strength[example.peak]))
    marked[example.peak] = True
    return marked


def show_window(window: Window) -> Shown:
    """A text without activations, cut at its end."""
    text = escape(window.text[: MAX_TEXT + 1])
    return Shown(text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + CUT)


def escape(text: str) -> str:
    """The text on one line, hidden characters visible, without our marks or block delimiters."""
    return visible(text).translate(_ESCAPES).replace("[[", "[\\u{5b}")


def quoted(token: str, *, escaped: bool = False) -> str:
    """A token in quotation marks, escaped unless it is already, and cut when long."""
    text = token if escaped else escape(token[:MAX_TOKEN])
    text = text if len(text) <= MAX_TOKEN else text[: MAX_TOKEN - 1] + CUT
    inner = text.replace('"', "\\u{22}")
    return f'"{inner}"'


def token_pieces(window: Window) -> list[str]:
    """The escaped text of each token; what the escapes join ([[) is split before them."""
    pieces, start = [], 0
    for end in window.token_ends.tolist():
        token = window.text[start:end]
        pieces.append(_escaped(token) if len(token) <= MAX_TOKEN else escape(token))
        start = end
    return pieces


# The tokens of a vocabulary come again and again; those that are long do not.
_escaped = lru_cache(maxsize=16_384)(escape)


def around(pieces: Sequence[str], peak: int, longest: int) -> tuple[int, int]:
    """The tokens [first, last) around the peak that together are at most ``longest`` long."""
    first, last = peak, peak + 1
    room = longest - len(pieces[peak])
    while True:
        before = first > 0 and len(pieces[first - 1]) <= room
        if before:
            first -= 1
            room -= len(pieces[first])
        after = last < len(pieces) and len(pieces[last]) <= room
        if after:
            room -= len(pieces[last])
            last += 1
        if not (before or after):
            return first, last


def with_marks(pieces: Sequence[str], marked: Sequence[bool]) -> str:
    """The pieces with marks around every run of marked ones; a huge piece is cut."""
    text, inside = "", False
    for piece, mark in zip(pieces, marked, strict=True):
        if mark != inside:
            text += OPEN if mark else CLOSE
            inside = mark
        text += piece if len(piece) <= MAX_TEXT else piece[: MAX_TEXT - 1] + CUT
    text += CLOSE if inside else ""
    # Two tokens may each end and begin with half of a delimiter.
    return text.replace("[[", "[\\u{5b}")


def _top(examples: Iterable[Example]) -> int:
    """The strongest activation (int16) among the peaks of examples."""
    return max((int(_strength(example)[example.peak]) for example in examples), default=0)


def _contrast(
    evidence: Evidence, background: Background, wanted: int, seed: str
) -> tuple[list[Example], list[Example], list[Window]]:
    """Examples of the other pole, random ones of known activation, and random texts.

    Fewer of one kind make room for the others. No document twice.
    """
    taken = {example.window.doc_id for example in evidence.examples} | evidence.withheld
    other = [item for item in evidence.contrast if item.window.doc_id not in taken]
    weak = [item for item in evidence.middle[::-1] if item.window.doc_id not in taken]
    texts = [window for window in background.windows if window.doc_id not in taken]
    n_other = min(len(other), max(wanted // 2, wanted - len(texts)))
    n_weak = min(len(weak), (wanted - n_other) // 2)
    start = int(seed[:12], 16)
    opposite, weak = _turned(other, start)[:n_other], weak[:n_weak]
    taken = {example.window.doc_id for example in (*opposite, *weak)}
    rest = [window for window in _turned(texts, start) if window.doc_id not in taken]
    return opposite, weak, rest[: wanted - n_other - n_weak]


def _turned(items: Sequence[_Item], start: int) -> list[_Item]:
    """The items, beginning somewhere among them and going around."""
    start = start % len(items) if items else 0
    return [*items[start:], *items[:start]]


def _source(name: str, share: float, usual: float) -> str:
    return f"{quoted(name)} {share:.0%} here, {usual:.0%} of the whole collection"


def _parts(item: Shown) -> tuple[str, str]:
    return item.text, item.activations


def nonce_of(contents: Iterable[str]) -> str:
    """Eight hex digits that depend on all contents and occur in none of them."""
    contents = tuple(contents)
    digest = text_digest(*contents)
    while any(digest[:8] in content for content in contents):
        digest = text_digest(digest)
    return digest[:8]
