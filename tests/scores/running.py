"""Scanned runs in a moment, with labels put into them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder.records import HAND, POLES, Label, Pole, Score
from builder.run_folder import Run
from builder.store import RunStore
from tests.scanned import run_of, scan, write_texts

WORDS_OF = [f"alpha{n}" for n in range(7)] + [f"beta{n}" for n in range(11)]
SCAN = {"top": 8, "reservoir": 25, "held_out": 30, "shard_documents": 40}


def texts(n: int) -> list[str]:
    rng = random.Random(9)
    return [f"{at} " + " ".join(rng.choices(WORDS_OF, k=12)) for at in range(n)]


def scanned(folder: Path, *, copies: int = 1, window: int = 48) -> Run:
    folder.mkdir(parents=True)
    sources = [write_texts(folder / f"{copy}.jsonl", texts(120)) for copy in range(copies)]
    run = run_of(folder / "run", *sources, scan=SCAN | {"window": window})
    scan(run)
    return run


def put_labels(run: Run, make: Callable[[str, Pole], list[Label]]) -> None:
    with RunStore(run.database_path, read_only=False) as store:
        labels = [
            label for row in store.directions() for pole in POLES for label in make(row.id, pole)
        ]
        # Labels by hand that come from no file are left alone where there is none.
        by_hand = any(label.labeler == HAND for label in labels)
        store.replace_labels(labels, fingerprint="" if by_hand else "made up")


def all_scores(run: Run) -> list[Score]:
    with RunStore(run.database_path) as store:
        return store.scores(judged=True, candidates=True)


def alpha(direction: str, pole: Pole) -> list[Label]:
    return [Label(direction, pole, "keywords", "alpha1, alpha2")]


def candidates_of(direction: str, pole: Pole) -> list[Label]:
    texts = ("alpha1", None, "beta1")
    return [
        Label(direction, pole, "a-model", text, candidate=at, is_chosen=at == 1, confidence=0.5)
        for at, text in enumerate(texts)
    ]


def judged_by(run: Run, url: str, *, label: dict[str, Any] | None = None, **score: object) -> Run:
    """The run with a judge at that address; ``label`` and ``score`` are further settings."""
    settings = run.settings
    own = {"api_key_env": "LABEL_KEY", "base_url": url, "concurrency": 4} | (label or {})
    update = {
        "score": settings.score.model_copy(update={"model": "a-judge", "base_url": url} | score),
        "label": settings.label.model_copy(update=own),
    }
    return dataclasses.replace(run, settings=settings.model_copy(update=update))
