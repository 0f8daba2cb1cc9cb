"""Questions, and a client that asks them, for the tests of the endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.endpoint.access import Access
from builder.endpoint.budget import Budget
from builder.endpoint.client import ChatClient
from builder.endpoint.messages import Question
from builder.endpoint.prices import Price
from builder.endpoint.replies import Replies

KEY = "sk-secret-0123456789abcdef"
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
#: With the usage that the scripted server reports, a reply costs one dollar.
DOLLAR = Price(5_000, 25_000, "made up")


def question(number: int = 0, user: str = "", **changes: Any) -> Question:
    table: dict[str, Any] = {
        "system": "You name things.",
        "user": user or f"What is number {number}? " + "It has many digits. " * 30,
        "hash": f"{number:032x}",
        "schema_name": "label",
        "schema": SCHEMA,
        "max_completion_tokens": 400,
    }
    return Question(**table | changes)


@contextlib.contextmanager
def asking(
    url: str,
    folder: Path,
    *,
    price: Price | None = None,
    budget: float | None = None,
    stage: str = "labels",
    **changes: Any,
) -> Iterator[tuple[ChatClient, Replies]]:
    """A client for a scripted server, and its kept replies."""
    table: dict[str, Any] = {"model": "m", "base_url": url, "timeout": 20.0} | changes
    access = Access(api_key_env="LABEL_KEY", **table)
    with Replies(folder / "replies.sqlite") as replies:
        limit = Budget(budget, replies.spent(price))
        with ChatClient(access, replies, stage=stage, price=price, budget=limit) as client:
            yield client, replies


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("LABEL_KEY", KEY)
