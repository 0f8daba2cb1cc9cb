"""Which of a pole's candidates is its label? The one that tells the ``select`` texts best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from builder.records import Label


def choose(candidates: Sequence[Label], f1: Sequence[float | None]) -> list[Label]:
    """The candidates of one pole with ``is_chosen`` true of one.

    The highest ``f1`` on texts that no score reports wins; equal ones go by confidence, then by
    order. "No consistent pattern" is as good as a label that fits nothing (F1 of 0); a candidate
    that could not be judged comes last.
    """

    def rank(at: int) -> tuple[float, float, int]:
        label, found = candidates[at], f1[at]
        worth = (0.0 if label.text is None else -1.0) if found is None else found
        return -worth, -(label.confidence or 0.0), label.candidate

    best = min(range(len(candidates)), key=rank)
    return [dataclasses.replace(label, is_chosen=at == best) for at, label in enumerate(candidates)]
