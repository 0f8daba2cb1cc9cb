"""What labelers said of the fixture runs: labels, failures, and poles without a pattern."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from builder.records import POLES, DirectionSet, Label, LabelFailure, Pole
from tests.pages.directed import middle
from tests.pages.texts import MARKUP_ATTACKS, THEMES, Theme, hostile_texts

EXPLAINER = "example-explainer-8b"


def fixture_labels(
    rng: np.random.Generator,
    directions: DirectionSet,
    poles: list[tuple[int, int] | None],
    *,
    hostile: bool,
) -> list[Label | LabelFailure]:
    """An answer or several for most poles: of a model, of keywords, failed, or without pattern."""
    answers: list[Label | LabelFailure] = []
    for index, item in enumerate(directions.directions):
        for at, pole in enumerate(POLES):
            themes = poles[index]
            if hostile:
                answers.append(_hostile_answer(item.id, pole, 2 * index + at))
            else:
                fixed = index in {0, 1, middle(directions)}
                # One pole that nobody labelled is there whatever the seed.
                draw = 1.0 if fixed else 0.17 if (index, at) == (2, 1) else float(rng.random())
                theme = THEMES[themes[at]] if themes else None
                answers += _answers(rng, draw, item.id, pole, theme)
    return answers


def placed_labels(directions: DirectionSet, payloads: Sequence[str]) -> list[Label | LabelFailure]:
    """These texts as labels, one at each pole, each with itself as explanation and keyword."""
    poles = [(item.id, pole) for item in directions.directions for pole in POLES]
    return [
        Label(direction, pole, EXPLAINER, text, text, keywords=(text,))
        for (direction, pole), text in zip(poles, payloads, strict=False)
    ]


def _answers(
    rng: np.random.Generator, draw: float, direction: str, pole: Pole, theme: Theme | None
) -> list[Label | LabelFailure]:
    if theme is None and draw > 0.4:  # a control, or a direction without a pattern
        theme = THEMES[int(rng.integers(len(THEMES)))]
        draw = 0.3 + draw / 3
    if theme is None or draw < 0.1:
        return [
            Label(direction, pole, "keywords", None, "No term stands out against the reservoir.")
        ]
    if draw < 0.16:
        return [LabelFailure(direction, pole, EXPLAINER, "truncated", "The examples all seem to")]
    if draw < 0.2:
        return []
    words = Label(
        direction,
        pole,
        "keywords",
        " · ".join(theme.keywords[:3]),
        f"{', '.join(theme.keywords[:3])} are far commoner here than in random documents.",
        keywords=theme.keywords,
        example_docs=tuple(range(10)),
    )
    if draw < 0.55:
        return [words]
    if draw > 0.8:
        return [words, *_candidates(rng, direction, pole, theme)]
    return [
        words,
        Label(
            direction,
            pole,
            EXPLAINER,
            theme.label,
            f"The peaks fall on words such as “{theme.keywords[0]}”.",
            keywords=theme.keywords,
            kind="topic",
            confidence=round(float(rng.uniform(0.6, 0.95)), 2),
            prompt_hash=hashlib.sha256(direction.encode()).hexdigest()[:16],
            example_docs=tuple(range(10)),
            prompt_tokens=1200,
            completion_tokens=60,
            created="2026-11-20",
            cost=0.0004,
        ),
    ]


def _candidates(
    rng: np.random.Generator, direction: str, pole: Pole, theme: Theme
) -> list[Label | LabelFailure]:
    """Three answers of one model, of which the second was chosen and the third is none."""
    texts = (f"texts that mention {theme.keywords[-1]}", theme.label)
    labels: list[Label | LabelFailure] = [
        Label(
            direction,
            pole,
            EXPLAINER,
            text,
            f"Candidate {at}: the peaks fall on words such as “{theme.keywords[0]}”.",
            keywords=theme.keywords,
            kind="topic",
            confidence=round(float(rng.uniform(0.6, 0.95)), 2),
            prompt_hash=hashlib.sha256(f"{direction}{at}".encode()).hexdigest()[:32],
            example_docs=tuple(range(10)),
            prompt_tokens=1200,
            completion_tokens=60,
            candidate=at,
            is_chosen=at == 1,
            agreement=0.64,
            created="2026-11-20",
            cost=0.0004,
        )
        for at, text in enumerate(texts)
    ]
    failed = LabelFailure(
        direction, pole, EXPLAINER, "refusal", "I cannot help with that.", candidate=2, cost=0.0003
    )
    return [*labels, failed]


def _hostile_answer(direction: str, pole: Pole, index: int) -> Label | LabelFailure:
    texts = [text for text in hostile_texts() if text.strip()]
    text = texts[index % len(texts)]
    if index % 5 == 4:
        return LabelFailure(direction, pole, text[:60].replace("\x00", ""), "malformed", text)
    return Label(direction, pole, MARKUP_ATTACKS[index % 3], text, text, keywords=(text, "plain"))
