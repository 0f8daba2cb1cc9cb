"""What a direction's script is to draw, worked out in Python from the file it draws it from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builder.pages.spans import Scale
from builder.records import POLES, ROLES
from tests.pages.packing import Packed, Values, seen

#: How every character of a text is coloured: of each `.t`, [characters, step from -7 to 7].
STEPS = """(texts) => texts.map((text) => {
    const nodes = document.createTreeWalker(text, NodeFilter.SHOW_TEXT), found = [];
    while (nodes.nextNode()) {
        const names = nodes.currentNode.parentElement.closest("i")?.className ?? "";
        const step = /\\b([pn])([1-7])\\b/.exec(names);
        const signed = step ? (step[1] === "p" ? 1 : -1) * step[2] : 0;
        found.push([nodes.currentNode.data, signed]);
    }
    return found;
})"""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One text of a page: pieces with the tokens of each, its peak, and its activations."""

    anchor: str
    lists: int
    role: str
    #: The role of every token.
    roles: list[str]
    pieces: list[tuple[str, int, int]]
    peak: int
    start: int
    context: int
    tuned: Values
    base: Values | None

    @property
    def tokens(self) -> int:
        """How many tokens of it are kept."""
        return len(self.tuned)

    def of(self, show: str) -> Values:
        """Its activations of the tuned model, the base, or the difference."""
        if show == "tuned" or self.base is None:
            return self.tuned
        return self.base if show == "base" else self.tuned - self.base

    def shown(self, *, is_open: bool = False) -> list[tuple[str, int, int]]:
        """The pieces that are shown: near the peak, or all."""
        if is_open:
            return self.pieces
        first, last = self.peak - self.context, self.peak + self.context
        return [
            (text, at, n) for text, at, n in self.pieces
            if at + max(1, n) - 1 >= first and at <= last
        ]  # fmt: skip

    def text(self, *, is_open: bool = False) -> str:
        """What a reader sees of it."""
        return "".join(seen(text) for text, _, _ in self.shown(is_open=is_open))

    def steps(self, scale: Scale, show: str) -> list[int]:
        """The step of every piece that is shown: that of its peak or of its strongest token."""
        steps = scale.steps(self.of(show))
        return [_strongest(steps[at : at + n], self.peak - at) for _, at, n in self.shown() if n]

    @property
    def has_more(self) -> bool:
        """Whether more is kept than is shown at first."""
        return self.peak > self.context or self.peak + self.context < self.tokens - 1


def examples_of(script: Packed) -> list[Drawn]:
    """All examples of a page, the max pole's first."""
    found = []
    for at, (row, place) in enumerate(
        zip(script.header["examples"], script.examples(), strict=True)
    ):
        pole, role, lists, _, _, _, doc, _, _, start, peak, runs = row
        base = None if script.base is None else script.base[place]
        found.append(
            Drawn(
                f"{POLES[pole]}-{ROLES[role]}-{doc}", lists, ROLES[role],
                [ROLES[of] for of, n in runs or [(role, sum(script.counts(at)))] for _ in range(n)],
                _pieces(script, at), peak, start, script.header["context"],
                script.tuned[place], base,
            )
        )  # fmt: skip
    return found


def random_of(script: Packed, texts: Packed) -> list[Drawn]:
    """The random documents of a page, as much of each as is shown."""
    found = []
    for row, place in zip(script.header["between"], script.between(), strict=True):
        _, _, _, at, _, peak, role, first, tokens, runs = row
        kept = [
            (text, token - first, n) for text, token, n in _pieces(texts, at)
            if first <= token < first + tokens
        ]  # fmt: skip
        base = None if script.base is None else script.base[place]
        start = texts.header["windows"][at][2] + first
        found.append(
            Drawn("", 0, ROLES[role],
                  [ROLES[of] for of, n in runs or [(role, tokens)] for _ in range(n)],
                  kept, peak - first, start, tokens, script.tuned[place], base)
        )  # fmt: skip
    return found


def scales_of(script: Packed) -> dict[str, Scale]:
    """The colours of each choice; a difference is coloured around zero."""
    own = Scale(*script.header["scale"])
    if script.base is None:
        return {"tuned": own}
    most = float(np.abs(script.tuned - script.base).max())
    return {"tuned": own, "base": own, "difference": Scale(-most, 0.0, most)}


def _pieces(texts: Packed, at: int) -> list[tuple[str, int, int]]:
    """The pieces of a text, each with its first token and how many it holds."""
    counts = texts.counts(at)
    return list(zip(texts.texts[at], np.cumsum([0, *counts]).tolist(), counts, strict=False))


def _strongest(steps: npt.NDArray[np.int64], peak: int) -> int:
    if 0 <= peak < len(steps):
        return int(steps[peak])
    return int(steps[np.abs(steps).argmax()])
