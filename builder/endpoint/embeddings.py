"""Where in space does a text lie? Asked of an endpoint's embeddings, like a question of a model.

Texts go in lists of AT_ONCE, and each list is one question: kept, tried again, counted and held to
the budget as all others are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder.config import LabelSettings
from builder.endpoint.access import as_detail
from builder.endpoint.bodies import Form, expected_prompt_tokens, most_usage
from builder.endpoint.client import ChatClient
from builder.endpoint.messages import Fault, Question, Reply
from builder.endpoint.replies import Usage

#: Texts in one request. For so many, vectors of 5,000 numbers of 24 bytes each fit a body; wider
#: ones only of a server that writes fewer digits, or in lists of fewer texts.
AT_ONCE = 32
#: Numbers in one vector; embeddings have some thousands.
MAX_WIDTH = 16_384

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """The vectors of some texts, [texts, width], and what they took: tokens, and US dollars.

    ``cost`` is None where no price is known. What was kept counts as it did when it was asked for.
    """

    vectors: Vectors
    prompt_tokens: int = 0
    cost: float | None = 0.0


def embedding_settings(settings: LabelSettings) -> LabelSettings | None:
    """The endpoint asked for embeddings; None where the settings name no model for them.

    A price set for the labeler is no other model's.
    """
    if not settings.embedding_model:
        return None
    changed = {"labeler": "openai", "model": settings.embedding_model, "temperature": None}
    return settings.model_copy(update=changed | {"price_input": None, "price_output": None})


class EmbeddingClient(ChatClient):
    """One endpoint and model for embeddings. Use as a context manager."""

    _path = "/embeddings"
    _setting = "label.embedding_model"

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # The questions that this client had answered itself; their lists are as new as can be.
        self._fresh: set[str] = set()

    @property
    def name(self) -> str:
        """The model, as pages name it."""
        return self._access.public_model

    def embed(self, texts: Sequence[str]) -> Vectors | Fault:
        """One vector for each text, [texts, width], or why there is none.

        Raises as :meth:`ChatClient.ask` does.
        """
        found = self.embedded(texts)
        return found if isinstance(found, Fault) else found.vectors

    def embedded(self, texts: Sequence[str], *, again: bool = False) -> Embedded | Fault:
        """The same with what it took; ``again``: nothing is taken that was kept before this client.

        A server may have another model behind the same name than when it embedded other texts.
        """
        found: list[Vectors] = []
        tokens, cost = 0, 0.0
        is_priced = True
        for question in embedding_questions(texts):
            reply = self.ask(question, again=again and question.hash not in self._fresh)
            if isinstance(reply, Fault):
                return reply
            if not reply.cached:
                self._fresh.add(question.hash)
            found.append(_unpacked(reply.content))
            tokens += reply.prompt_tokens
            cost += reply.cost or 0.0
            is_priced &= reply.cost is not None
        if len({vectors.shape[1] for vectors in found}) > 1:
            return Fault("malformed", "vectors of several widths")
        vectors = np.concatenate(found) if found else np.zeros((0, 0), np.float32)
        return Embedded(vectors, tokens, cost if is_priced else None)

    def _body(self, question: Question, form: Form) -> Mapping[str, Any]:
        del form  # there is only one
        return {
            "model": self._access.model,
            "input": json.loads(question.user),
            "encoding_format": "float",
        }

    def _read(self, text: str, question: Question) -> tuple[Reply | Fault, Usage]:
        return read_embeddings(text, question)


def read_embeddings(text: str, question: Question) -> tuple[Reply | Fault, Usage]:
    """The vectors in a response body as a reply, or why there are none; and what was used."""
    usage = Usage(expected_prompt_tokens(question), 0, unmetered=True)
    try:
        table = json.loads(text)
        rows = sorted(table["data"], key=lambda row: int(row["index"]))
        indices = [row["index"] for row in rows]
        vectors = _vectors([row["embedding"] for row in rows])
        reported = table.get("usage")
        prompt = reported.get("prompt_tokens") if isinstance(reported, dict) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        return Fault("malformed", f"no embeddings: {as_detail(text)}"), usage
    most = most_usage(question).prompt_tokens
    if isinstance(prompt, int) and not isinstance(prompt, bool) and 1 <= prompt <= most:
        usage = Usage(prompt, 0)
    n = len(json.loads(question.user))
    # A vector of zeros has no direction, and so no cosine.
    if indices != list(range(n)) or not vectors.any(axis=1).all():
        return Fault("malformed", f"not {n} vectors, each with a direction"), usage
    return Reply(
        content=_packed(vectors),
        finish_reason="stop",
        prompt_tokens=usage.prompt_tokens,
        unmetered=usage.unmetered,
    ), usage


def _vectors(rows: Sequence[Any]) -> Vectors:
    """Raises ValueError or OverflowError for what are no finite vectors of one width."""
    if not all(isinstance(row, list) and {type(x) for x in row} <= {int, float} for row in rows):
        raise ValueError("not lists of numbers")
    found = np.array(rows, dtype=np.float64)
    if found.ndim != 2 or not 1 <= found.shape[1] <= MAX_WIDTH:
        raise ValueError("no vectors of one width")
    if not (np.abs(found) <= np.finfo(np.float32).max).all():
        raise ValueError("not finite")
    return found.astype(np.float32)


def embedding_questions(texts: Sequence[str]) -> list[Question]:
    """What is asked for the embeddings of texts: lists of AT_ONCE, in order."""
    return [_question(texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE)]


def _question(texts: Sequence[str]) -> Question:
    # Half a surrogate pair cannot be sent.
    clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    user = json.dumps(clean, ensure_ascii=False)
    digest = hashlib.sha256(user.encode("utf-8")).hexdigest()[:32]
    return Question("", user, digest, "embedding", {}, 0)


def _packed(vectors: Vectors) -> str:
    little = np.ascontiguousarray(vectors, dtype="<f4")
    return f"{vectors.shape[1]} {base64.b64encode(little.tobytes()).decode('ascii')}"


def _unpacked(content: str) -> Vectors:
    """Raises ValueError for what :func:`_packed` did not write."""
    width, _, data = content.partition(" ")
    try:
        found = np.frombuffer(base64.b64decode(data, validate=True), dtype="<f4")
    except binascii.Error as error:
        raise ValueError("no packed vectors") from error
    return found.reshape(-1, int(width)).astype(np.float32)
