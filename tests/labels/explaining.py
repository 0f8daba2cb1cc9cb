"""Poles that are labelled through a scripted endpoint, for the tests of the labeler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.config import LabelSettings
from builder.endpoint.access import Access
from builder.endpoint.client import ChatClient
from builder.endpoint.replies import Replies
from builder.labels.evidence import Background, Evidence
from builder.labels.explain import Result, label_poles
from tests.labels.endpoint import Endpoint, Response
from tests.labels.making import background_of, evidence_of, insert

BACKGROUND = background_of(documents=30)
EVIDENCE = evidence_of(lambda rng, text: insert(rng, text, "lighthouse"))


def poles(n: int) -> list[Evidence]:
    """Evidence of ``n`` poles, each with another prompt."""
    return [
        replace(EVIDENCE, direction=f"L00.o_proj.u{i:02d}", promoted=(f"token {i}",))
        for i in range(n)
    ]


def settings_for(endpoint: Endpoint | None, **changes: Any) -> LabelSettings:
    table: dict[str, Any] = {
        "labeler": "openai",
        "model": "scripted-model",
        "base_url": endpoint.url if endpoint else "",
        "api_key_env": "LABEL_KEY",
        "concurrency": 2,
        "timeout": 20.0,
    }
    return LabelSettings.model_validate(table | changes)


def label_all(
    evidences: Iterable[Evidence],
    background: Background,
    chosen: LabelSettings,
    *,
    cache_dir: Path,
    again: bool = False,
) -> Iterator[Result]:
    """Every result for these poles, through the client and kept replies as the stage uses them."""
    with (
        Replies(cache_dir / "replies.sqlite") as replies,
        ChatClient(Access.of(chosen), replies, stage="labels") as client,
    ):
        for results in label_poles(evidences, background, chosen, client, again=again):
            yield from results


def labelled(endpoint: Endpoint, cache: Path, n: int = 1, **changes: Any) -> list[Result]:
    chosen = settings_for(endpoint, **changes)
    found = label_all(poles(n), BACKGROUND, chosen, cache_dir=cache)
    return sorted(found, key=lambda result: (result.direction, result.candidate))


def always(response: Response) -> Callable[[int, dict[str, Any]], Response]:
    return lambda number, body: response
