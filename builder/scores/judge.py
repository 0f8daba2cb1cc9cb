"""Who says whether a label fits a text? What every judge is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from builder.records import Scorer, Window


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """One text to be judged: what is shown of it, and nothing of what is true of it.

    ``peak``: the token around which a long text is cut. ``marked``: the tokens that are marked,
    None where the question is about the whole text.
    """

    window: Window
    peak: int
    marked: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What verdicts cost: tokens, and US dollars, None if any are unknown."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0

    def __add__(self, other: Usage) -> Usage:
        known = self.cost is not None and other.cost is not None
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            (self.cost or 0.0) + (other.cost or 0.0) if known else None,
        )


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One verdict from 0 to 1 for each text in order, at least 0.5 meaning that the label fits.

    None where there is none; ``faults`` counts those by reason.
    """

    values: tuple[float | None, ...]
    faults: Mapping[str, int] = field(default_factory=dict)
    usage: Usage = Usage()


class Judge(Protocol):
    """Who judges; may be shared between threads."""

    @property
    def name(self) -> str:
        """As it stands in :class:`builder.records.Score`."""
        ...

    def judge(self, label: str, texts: Sequence[Text], scorer: Scorer) -> Verdicts:
        """How well a label fits each text, or, in fuzzing, the tokens that are marked in it."""
        ...
