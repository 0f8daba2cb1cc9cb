"""The script files of a site, read with Python: what they hold, and what a reader sees of it."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder.pages import links
from builder.pages.packed import unpacked
from builder.pages.spans import Pieces, marked_token
from builder.pages.views import DirectionView
from builder.records import Window

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Packed:
    """A file: its header, the pieces of its texts, and the activations of all tokens in order."""

    header: dict[str, Any]
    texts: list[list[str]]
    tuned: Values
    base: Values | None

    @property
    def half_a_step(self) -> float:
        """How far a value may be from what it was, and a hair for what the header rounds."""
        low, high = self.header["span"]
        return float(high - low) / 510 + 2e-6

    def counts(self, at: int) -> list[int]:
        """How many tokens each piece of a text holds."""
        several = dict(self.header["texts"][at][2])
        return [several.get(piece, 1) for piece in range(len(self.texts[at]))]

    def examples(self) -> list[slice]:
        """Where the activations of each example's tokens are."""
        return self._slices([sum(self.counts(at)) for at in range(len(self.header["examples"]))], 0)

    def between(self) -> list[slice]:
        """Where those of each random document are, behind all examples."""
        first = sum(part.stop - part.start for part in self.examples())
        return self._slices([row[8] for row in self.header["between"]], first)

    @staticmethod
    def _slices(lengths: list[int], first: int) -> list[slice]:
        ends = (first + np.cumsum([0, *lengths])).tolist()
        return [slice(start, end) for start, end in itertools.pairwise(ends)]


def packed(content: bytes) -> Packed:
    """What a file holds."""
    header, texts, rest = unpacked(content)
    low, high = header["span"]
    values = low + np.frombuffer(rest, np.uint8) / 255 * (high - low)
    if not header["base"]:
        return Packed(header, texts, values, None)
    tuned, base = np.split(values, 2)
    return Packed(header, texts, tuned, base)


def script_of(site: Path, item: DirectionView) -> Packed:
    """The file of a direction's page."""
    run, name = item.page.split("/")[1], item.name
    return packed((site / links.direction_script(run, name)).read_bytes())


def random_texts(site: Path, run: str) -> Packed:
    """The random documents that the pages of a run share."""
    return packed((site / links.texts_script(run)).read_bytes())


def pieces_of(window: Window) -> tuple[list[str], list[int]]:
    """The pieces of a window as the script is to have them, and how many tokens are in each."""
    cut = Pieces.of(window)
    texts = [
        marked_token(cut.text[start:end]) for start, end in zip(cut.starts, cut.ends, strict=True)
    ]
    tokens = [last - first + 1 for first, last in zip(cut.firsts, cut.lasts, strict=True)]
    covered = cut.ends[-1] if cut.ends else 0
    if covered < len(window.text):
        texts.append(marked_token(window.text[covered:]))
        tokens.append(0)
    return texts, tokens


def seen(text: str) -> str:
    """What a reader sees of a text of a file: of hidden characters their code points."""
    return re.sub("\0(U\\+[0-9A-F]{4,6}|[0-9]+ more characters)[^\0]*\0", r"\1", text)
