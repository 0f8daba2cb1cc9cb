"""Traces and ranges for tests: made up, or of a micro model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from builder.activations.corpus import Document
from builder.activations.tokens import DocumentTokenizer, TokenizedDocument
from builder.monitor.traces import Trace, Tracer
from builder.records import ROLES
from tests import micro

SINK_FACTOR = 3.0


@functools.cache
def model() -> Any:
    return micro.make_model()


def pieces(documents: Sequence[Document], **settings: Any) -> list[TokenizedDocument]:
    tokenizer = DocumentTokenizer(model().tokenizer, settings.pop("max_tokens", 256), **settings)
    found = tokenizer.tokenize(documents)
    assert all(isinstance(item, TokenizedDocument) for item in found)
    return [item for item in found if isinstance(item, TokenizedDocument)]


def tracer(batch_tokens: int = 600, sink_factor: float = SINK_FACTOR) -> Tracer:
    return Tracer(
        model(), micro.make_directions(), sink_factor=sink_factor, batch_tokens=batch_tokens
    )


def trace(
    roles: str, values: Any, *, counts: Any = None, first: int = 0, words: Sequence[str] = ()
) -> Trace:
    """A made-up piece: ``roles`` are the first letters of its tokens' roles, ``values`` [T, D]."""
    activations = np.asarray(values, dtype=np.float32)
    n = len(roles)
    activations = activations.reshape(n, -1)
    texts = list(words) or [f"w{at} " for at in range(n)]
    own = [next(at for at, role in enumerate(ROLES) if role[0] == letter) for letter in roles]
    piece = TokenizedDocument(
        document=Document(0, "made up", text="".join(texts)),
        piece=0,
        first=first,
        context=0,
        text="".join(texts),
        ids=np.arange(n, dtype=np.int32),
        ends=np.cumsum([len(text) for text in texts]).astype(np.int64),
        roles=np.asarray(own, dtype=np.uint8),
        special=np.zeros(n, dtype=np.bool_),
        cut=False,
    )
    counting = np.ones_like(activations, dtype=np.bool_) if counts is None else np.asarray(counts)
    return Trace(piece, activations, counting.reshape(activations.shape).astype(np.bool_))
