"""Made-up scores of the fixture runs' labels, every judged text included, and what they cost."""

from __future__ import annotations

import numpy as np

from builder.records import (
    ANY_ROLE,
    HAND,
    POLES,
    RANKING,
    Example,
    Judged,
    Label,
    Pole,
    Score,
    Scorer,
    Spend,
    Stratum,
    Window,
)
from builder.store import RunStore

JUDGE, COUNTER, EMBEDDER = "example-judge-70b", "words", "example-embedder"
#: Of every list held out for scores, how many are judged.
_JUDGED = 5


def write_scores(rng: np.random.Generator, store: RunStore, *, hostile: bool = False) -> None:
    """Scores of every label with a text: detection and fuzzing, by a model also embedding.

    Labels of directions from the weights are mostly right, those of controls no better than chance;
    every seventh text gets no verdict. Candidates have scores that decide between them.
    """
    kinds = {row.id: row.kind for row in store.directions()}
    held_out = store.held_out()
    scores: dict[str, list[Score]] = {}
    examples: list[Example] = []
    read = ""
    for label in store.labels(candidates=True):
        if not label.text:
            continue
        if label.direction != read:
            read, examples = label.direction, store.examples(label.direction, role=ANY_ROLE)
        model = label.labeler not in {"keywords", HAND}
        scorers: tuple[Scorer, ...] = ("detection", "fuzzing", *(("embedding",) if model else ()))
        # Some labels of real directions are no better than chance, too.
        is_good = kinds[label.direction] != "control" and rng.random() < 0.8
        skill = 0.93 if is_good else 0.55
        for scorer in scorers:
            own = scores.setdefault(label.labeler, [])
            if label.is_chosen:
                own.append(_score(rng, label, scorer, examples, held_out, skill, hostile=hostile))
            if label.agreement is not None and scorer == "detection":
                own.append(
                    _score(
                        rng, label, scorer, examples, held_out, skill, split="select",
                        hostile=hostile,
                    )
                )  # fmt: skip
    for labeler, found in scores.items():
        store.replace_scores(labeler, found)
    if any(labeler not in {"keywords", HAND} for labeler in scores):
        store.replace_spend(
            "labels", [Spend("labels", _name(hostile), 31, 37_200, 1_860, 2, 0.0123)]
        )
        store.replace_spend("scores", [Spend("scores", JUDGE, 240, 480_000, 9_600, 0, None)])


def _name(hostile: bool) -> str:
    return '"><script>window.owned=1</script>\u202e' if hostile else "example-explainer-8b"


def _score(
    rng: np.random.Generator,
    label: Label,
    scorer: Scorer,
    examples: list[Example],
    held_out: list[Window],
    skill: float,
    *,
    split: str = "test",
    hostile: bool = False,
) -> Score:
    judged = [
        _judged(rng, scorer, skill, example.pole == label.pole, example.place, example.window,
                "pole" if example.pole == label.pole else "other")
        for pole in POLES
        for example in [e for e in examples if e.pole == pole][1::2][:_JUDGED]
    ]  # fmt: skip
    judged += [
        _judged(rng, scorer, skill, False, place, window, "random" if place % 2 else "middle")
        for place, window in enumerate(held_out)
    ]
    right = sum(item.truth and (item.verdict or 0) >= 0.5 for item in judged)
    wrong = sum(not item.truth and (item.verdict or 0) >= 0.5 for item in judged)
    missed = sum(item.truth for item in judged) - right
    f1 = 2 * right / max(1, 2 * right + wrong + missed)
    unparsed = sum(item.verdict is None for item in judged)
    positive = sum(item.truth and item.verdict is not None for item in judged)
    ranks = scorer in RANKING
    return Score(
        label.direction,
        label.pole,
        label.labeler,
        scorer,
        ('<img src=x onerror="window.owned=1">' if hostile else EMBEDDER if ranks else JUDGE)
        if label.labeler != "keywords"
        else COUNTER,
        label.text or "",
        None if ranks else f1,
        round(min(1.0, f1 + 0.03), 3),
        None if ranks else (max(0.0, f1 - 0.17), min(1.0, f1 + 0.12)),
        (max(0.0, f1 - 0.2), min(1.0, f1 + 0.1)),
        None if ranks else (0.02, 0.31),
        base_rate=0.021,
        between=0.34,
        n_positive=positive,
        n_negative=len(judged) - unparsed - positive,
        unparsed=unparsed,
        faults={"malformed": unparsed} if unparsed else {},
        prompt_tokens=2400,
        completion_tokens=80,
        cost=0.0021 if label.labeler != "keywords" else None,
        candidate=label.candidate,
        split="select" if split == "select" else "test",
        judged=tuple(judged),
    )


def _judged(
    rng: np.random.Generator,
    scorer: Scorer,
    skill: float,
    truth: bool,
    place: int,
    window: Window,
    stratum: Stratum,
) -> Judged:
    right = rng.random() < skill
    verdict: float | None = float(truth == right)
    if rng.random() < 0.05:
        verdict = None
    elif scorer == "embedding":
        verdict = round(0.5 + (0.4 if verdict else -0.4) * float(rng.random()), 3)
    first, tokens = len(window.token_ends) // 4, len(window.token_ends) // 2
    marked = np.sort(rng.permutation(tokens)[: min(3, tokens)]).tolist()
    return Judged(
        stratum, place, window.doc_id, truth, verdict, 0.002 if truth else 0.07, first, tokens,
        tuple(marked) if scorer == "fuzzing" else (),
    )  # fmt: skip


def hand_label(direction: str, pole: Pole) -> str:
    """A ``labels.toml`` with one entry."""
    return f"""
[[label]]
direction = "{direction}"
pole = "{pole}"
text = "Refusals of a <b>rude</b> kind"
explanation = "Read all twenty & agreed with nobody."
author = "A. Reader <reader@example.org>"
date = 2026-11-21
"""
