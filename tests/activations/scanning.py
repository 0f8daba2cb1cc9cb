"""A scan of micro documents by the project's code, and by a loop that is read at one glance."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from builder.activations.candidates import standing
from builder.activations.corpus import Document
from builder.activations.model import ScannedModel
from builder.activations.scan import Scanner, ShardResult
from builder.activations.shard_tables import shard_files
from builder.activations.tokens import DocumentTokenizer, TokenizedDocument
from builder.config import ScanSettings
from builder.records import POLES, ROLES
from tests import micro
from tests.readings import stand

SETTINGS = ScanSettings(top=5, window=6, tail=7, batch_tokens=600, sink_factor=3.0)
Tables = dict[str, list[dict[str, Any]]]


def marked(documents: Sequence[Document]) -> list[Document]:
    """The documents as freezing marks them where nothing but equal texts is alike."""
    seen: dict[str, int] = {}
    found = []
    for item in documents:
        text = repr((item.messages, item.text))
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        found.append(
            replace(
                item,
                cluster=int.from_bytes(digest[:8], "little"),
                priority=int.from_bytes(digest[8:], "little"),
                is_first=text not in seen,
                sampled=digest[0] < 40,
            )
        )
        seen[text] = item.doc_id
    return found


def tokenizer(model: ScannedModel, **settings: Any) -> DocumentTokenizer:
    return DocumentTokenizer(model.tokenizer, settings.pop("max_tokens", 256), **settings)


def scan(
    documents: Sequence[Document],
    settings: ScanSettings = SETTINGS,
    *,
    model: ScannedModel | None = None,
    base: ScannedModel | None = None,
    padding: Any = "right",
    **tokens: Any,
) -> ShardResult:
    """The result of one shard of these documents."""
    model = model or micro.make_model()
    scanner = Scanner(model, micro.make_directions(), settings, base, padding=padding)
    return scanner.scan(tokenizer(model, **tokens).tokenize(documents))


def tables(result: ShardResult, settings: ScanSettings = SETTINGS) -> Tables:
    """The rows of a shard's files."""
    return {
        name.removesuffix(".parquet"): pq.read_table(io.BytesIO(data)).to_pylist()
        for name, data in shard_files(result, settings).items()
    }


@dataclass(frozen=True)
class Seen:
    """What the loop sees: a document's tokens and, by direction, the cosine at each of them."""

    item: TokenizedDocument
    values: dict[int, Any]
    usable: dict[int, Any]  # by layer

    def of(self, direction: int, layer: int, role: int) -> list[int]:
        """Places of the tokens of a role that count."""
        return [
            t
            for t in range(len(self.item.ids))
            if self.item.roles[t] == role and self.usable[layer][t]
        ]


def look(
    documents: Sequence[Document], model: ScannedModel | None = None, **tokens: Any
) -> list[Seen]:
    """One piece of a document, one direction and one token at a time."""
    model, directions = model or micro.make_model(), micro.make_directions()
    found = []
    for item in tokenizer(model, **tokens).tokenize(documents):
        assert isinstance(item, TokenizedDocument)
        streams: list[torch.Tensor] = []
        hooks = [
            layer.register_forward_hook(
                lambda _m, _i, out, streams=streams: streams.append(
                    out[0] if isinstance(out, tuple) else out
                )
            )
            for layer in model.layers
        ]
        with torch.no_grad():
            model.backbone(input_ids=torch.from_numpy(item.ids.astype(np.int64))[None])
        for hook in hooks:
            hook.remove()
        values, usable = {}, {}
        for index, direction in enumerate(directions.directions):
            layer = direction.hookpoint.layer
            stream = streams[layer][0].double().numpy()
            norms = np.linalg.norm(stream, axis=1)
            own = ~item.special & (np.arange(len(item.ids)) >= item.context)
            ordinary = sorted(norms[own])
            median = ordinary[(len(ordinary) - 1) // 2]
            usable[layer] = own & (norms <= SETTINGS.sink_factor * median)
            values[index] = stream @ direction.vector / norms
        found.append(Seen(item, values, usable))
    return found


def best_by_loop(seen: Sequence[Seen], top: int) -> dict[Any, list[dict[str, Any]]]:
    """What stands in the lists by (direction, role, pole), in order, with ``repeats``.

    Each has ``seen``, the piece that it is from, and ``at``, the peak's place in it.
    """
    directions = micro.make_directions().directions
    everything: dict[Any, list[Any]] = defaultdict(list)
    for one in seen:
        item = one.item
        for index, direction in enumerate(directions):
            for role in range(len(ROLES)):
                places = one.of(index, direction.hookpoint.layer, role)
                for pole, sign in enumerate((1, -1)) if places else ():
                    at = max(places, key=lambda t: (sign * one.values[index][t], -t))
                    digest = hashlib.blake2b(item.ids[: at + 1].tobytes(), digest_size=8)
                    everything[index, role, pole].append(
                        {
                            "value": one.values[index][at],
                            "pole": pole,
                            "prefix": digest.hexdigest(),
                            "cluster": item.document.cluster,
                            "doc_id": item.document.doc_id,
                            "piece": item.piece,
                            "seen": one,
                            "at": at,
                        }
                    )
    return {key: stand(rows, top) for key, rows in everything.items()}


def shown(found: Tables, top: int = SETTINGS.top) -> dict[Any, list[dict[str, Any]]]:
    """What stands for the readings of a shard's lists by (direction, role, pole), with repeats."""
    lists: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in found["examples"]:
        lists[row["direction"], row["role"], row["pole"]].append(row)
    return {
        key: [
            {**row, "repeats": repeats}
            for row, repeats in standing(
                ((row, row["prefix"], row["cluster"]) for row in rows), top
            )
        ]
        for key, rows in lists.items()
    }


POLE_SIGNS = tuple(zip(range(len(POLES)), (1, -1), strict=True))
