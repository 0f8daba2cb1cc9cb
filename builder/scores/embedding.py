"""Is a label nearer to the texts at a pole than to others, by an embedding? No model is asked why.

The verdict is the cosine of the label's and the text's embedding, negative ones as 0. No cosine
means yes on every model, so there is no F1, only the average precision of the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from builder.endpoint.messages import Fault
from builder.records import Scorer
from builder.scores.judge import Text, Verdicts
from builder.scores.shown import shown


class Embedder(Protocol):
    """Who embeds texts; may be shared between threads."""

    @property
    def name(self) -> str:
        """The model."""
        ...

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32] | Fault:
        """Vectors [texts, width], or why there are none."""
        ...


class EmbeddingJudge:
    """Judges by the nearness of embeddings."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def name(self) -> str:
        """The model that embeds."""
        return self._embedder.name

    def judge(self, label: str, texts: Sequence[Text], scorer: Scorer) -> Verdicts:
        """A verdict for every text, or for none."""
        del scorer  # only the texts as a whole are embedded
        found = self._embedder.embed([label, *(shown(text) for text in texts)])
        if isinstance(found, Fault):
            return Verdicts((None,) * len(texts), {found.reason: len(texts)})
        vectors = np.asarray(found, dtype=np.float64)
        if vectors.ndim != 2 or len(vectors) != len(texts) + 1 or not np.isfinite(vectors).all():
            return Verdicts((None,) * len(texts), {"malformed": len(texts)})
        norms = np.linalg.norm(vectors, axis=1)
        near = vectors[1:] @ vectors[0] / np.maximum(norms[1:] * norms[0], 1e-12)
        return Verdicts(tuple(np.clip(near, 0.0, 1.0).tolist()))
