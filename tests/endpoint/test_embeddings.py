from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.endpoint.access import Access
from builder.endpoint.bodies import expected_prompt_tokens
from builder.endpoint.budget import Budget
from builder.endpoint.embeddings import (
    AT_ONCE,
    MAX_WIDTH,
    Embedded,
    EmbeddingClient,
    embedding_questions,
)
from builder.endpoint.messages import Fault
from builder.endpoint.prices import Price
from builder.endpoint.replies import Replies
from builder.errors import LabelerError
from tests.labels.endpoint import Response, error, serving

PRICE = Price(1e6, 0)


@contextlib.contextmanager
def embedding(
    url: str, folder: Path, budget: float | None = None
) -> Iterator[tuple[EmbeddingClient, Replies]]:
    access = Access("e", url, api_key_env="LABEL_KEY", timeout=20.0)
    with Replies(folder / "replies.sqlite") as replies:
        limit = Budget(budget, replies.spent(PRICE))
        with EmbeddingClient(access, replies, stage="labels", price=PRICE, budget=limit) as client:
            yield client, replies


def by_length(number: int, body: dict[str, Any]) -> Response:
    """Vectors of the length of each text, given in another order."""
    rows = [
        {"index": index, "embedding": [float(len(text)), 0.1]}
        for index, text in enumerate(body["input"])
    ]
    usage = {"prompt_tokens": len(rows), "total_tokens": len(rows)}
    return Response(json.dumps({"object": "list", "data": rows[::-1], "usage": usage}))


def test_texts_are_embedded_in_order_counted_and_asked_once(tmp_path: Path) -> None:
    texts = ["x" * n for n in range(1, AT_ONCE + 6)]
    with serving(by_length) as endpoint:
        for _ in range(2):
            with embedding(endpoint.url, tmp_path) as (client, replies):
                found = client.embed(texts)
                (spend,) = replies.spend("labels")

    wanted = np.array([[len(text), 0.1] for text in texts], np.float32)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, wanted)
    assert [len(body["input"]) for body in endpoint.requests] == [AT_ONCE, 5]
    assert {body["model"] for body in endpoint.requests} == {"e"}
    assert (spend.requests, spend.prompt_tokens, spend.completion_tokens) == (2, AT_ONCE + 5, 0)
    assert (spend.unmetered, spend.cost) == (0, AT_ONCE + 5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "data",
    [
        [],
        "none",
        None,
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": ["a"]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [float("nan")]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [float("inf")]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1e39]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [10**400]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": ["1.5"]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": "1"}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [True]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [None]}],
        [{"index": 0, "embedding": [1.0, 2]}, {"index": 1, "embedding": [0, 0.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1e-60]}],
        [{"index": 0, "embedding": [[1.0]]}, {"index": 1, "embedding": [[1.0]]}],
        [{"index": at, "embedding": [1] * (MAX_WIDTH + 1)} for at in range(2)],
        [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}],
        [{"index": 0, "embedding": 1.0}, {"index": 1, "embedding": 1.0}],
        [{"index": "a", "embedding": [1.0]}, {"embedding": [1.0]}],
    ],
)
def test_what_is_no_vector_for_each_text_is_malformed_and_counted(
    data: Any, tmp_path: Path
) -> None:
    with (
        serving(lambda number, body: Response(json.dumps({"data": data}))) as endpoint,
        embedding(endpoint.url, tmp_path) as (client, replies),
    ):
        found = client.embed(["a", "b"])
        (spend,) = replies.spend("labels")

    assert isinstance(found, Fault)
    assert found.reason == "malformed"
    assert (spend.requests, spend.unmetered) == (1, 1)


@pytest.mark.parametrize("said", [10**9, 0, -5, "7", True, 2.0, None])
def test_a_count_of_tokens_that_cannot_be_is_estimated(said: Any, tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Response:
        rows = [{"index": 0, "embedding": [1, 2.5]}]
        return Response(json.dumps({"data": rows, "usage": {"prompt_tokens": said}}))

    with (
        serving(answer) as endpoint,
        embedding(endpoint.url, tmp_path) as (client, replies),
    ):
        found = client.embedded(["a text of some tokens"])
        (spend,) = replies.spend("labels")

    (question,) = embedding_questions(["a text of some tokens"])
    assert isinstance(found, Embedded)
    assert found.prompt_tokens == spend.prompt_tokens == expected_prompt_tokens(question)
    assert (spend.unmetered, spend.cost) == (1, spend.prompt_tokens)


def test_embeddings_keep_to_the_budget(tmp_path: Path) -> None:
    with (
        serving(by_length) as endpoint,
        embedding(endpoint.url, tmp_path, budget=10.0) as (client, _),
    ):
        found = client.embed(["a text"])

    assert isinstance(found, Fault)
    assert found.reason == "budget"
    assert endpoint.requests == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_model_that_is_refused_is_named_with_its_own_setting(status: int, tmp_path: Path) -> None:
    with (
        serving(lambda number, body: error(status, "no")) as endpoint,
        embedding(endpoint.url, tmp_path) as (client, _),
        pytest.raises(LabelerError, match=r"check label\.base_url, label\.embedding_model \('e'\)"),
    ):
        client.embed(["a text"])


def test_no_texts_are_no_request(tmp_path: Path) -> None:
    with serving(by_length) as endpoint, embedding(endpoint.url, tmp_path) as (client, _):
        found = client.embed([])

    assert isinstance(found, np.ndarray)
    assert len(found) == 0
    assert endpoint.requests == []
