"""What does one shard of the corpus leave behind? A pure function from documents to shard files.

``Scanner`` holds the loaded model and the directions; :meth:`Scanner.scan` reads documents through
the model once, all directions of all layers in the same forward pass, and gives a
:class:`ShardResult` that :func:`write_shard` puts on disk. Who calls it, and for which shards, is
the executor's business.

Documents are sorted by length and cut into batches of at most ``batch_tokens`` padded tokens.
Padding is on the right and attention is causal, so no token ever sees padding and no mask is
needed; the result does not depend on the batches beyond rounding.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from builder.activations.accumulate import Accumulator, Batch, Candidates, Stats, make_batch
from builder.activations.corpus import Document
from builder.activations.hooks import residual_hooks
from builder.activations.model import ScannedModel
from builder.activations.shard_files import (
    COUNTS_SCHEMA,
    DOCUMENTS_SCHEMA,
    EXAMPLES_SCHEMA,
    RESERVOIR_SCHEMA,
    STATS_SCHEMA,
)
from builder.activations.tokens import DocumentTokenizer, Dropped, TokenizedDocument
from builder.config import ScanSettings
from builder.errors import ScanError
from builder.records import HISTOGRAM_BINS, ROLES, DirectionSet

#: (what, name, layer) as in COUNTS_SCHEMA.
CountKey = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True, eq=False)
class ShardResult:
    """Everything a shard leaves behind: statistics, candidates, random documents and counts."""

    stats: Stats
    candidates: Candidates
    reservoir: tuple[tuple[int, TokenizedDocument], ...]
    documents: dict[int, TokenizedDocument]
    counts: Counter[CountKey]


class Scanner:
    """A loaded model with a run's directions, ready to scan shards."""

    def __init__(
        self, model: ScannedModel, directions: DirectionSet, settings: ScanSettings
    ) -> None:
        """Checks that the directions fit the model; raises ScanError if they do not."""
        self._model = model
        self._settings = settings
        self._n_directions = len(directions.directions)
        self._by_layer = _group_by_layer(directions)
        self._tokenizer = DocumentTokenizer(
            model.tokenizer, min(settings.max_tokens, model.context)
        )
        pad = model.tokenizer.pad_token_id
        self._pad_id = 0 if pad is None else int(pad)
        if any(layer >= len(model.layers) for layer in self._by_layer):
            raise ScanError(
                f"the directions reach layer {max(self._by_layer)}, "
                f"the model has {len(model.layers)} decoder layers"
            )

    def scan(
        self,
        documents: Sequence[Document],
        on_batch: Callable[[int, int], None] = lambda _documents, _tokens: None,
    ) -> ShardResult:
        """What these documents leave behind; depends on nothing else.

        ``on_batch(documents, tokens)`` is told of each batch that is through.
        """
        settings = self._settings
        counts: Counter[CountKey] = Counter()
        tokenized: list[TokenizedDocument] = []
        for item in self._tokenizer.tokenize(documents):
            if isinstance(item, Dropped):
                counts["dropped", item.reason, None] += 1
            else:
                tokenized.append(item)
        accumulator = Accumulator(
            self._by_layer,
            n_directions=self._n_directions,
            top=settings.top,
            window=settings.window,
            sink_factor=settings.sink_factor,
            device=self._model.device,
        )
        with (
            torch.inference_mode(),
            residual_hooks(self._model.layers, sorted(self._by_layer), accumulator.observe),
        ):
            for batch in self._batches(tokenized):
                accumulator.begin(batch)
                self._forward(batch)
                on_batch(len(batch.documents), len(batch.flat))
        stats, candidates = accumulator.finish()
        if not np.isfinite(stats.total).all():
            raise ScanError(
                "the model's residual stream holds NaN or Inf; try scan.dtype = 'float32'"
            )
        _count(tokenized, counts)
        for layer, sinks in accumulator.sinks.items():
            counts["excluded", "attention sink", layer] += sinks
        reservoir = _reservoir(tokenized, settings)
        named = {*candidates.doc_id.tolist(), *(item.doc_id for _, item in reservoir)}
        return ShardResult(
            stats=stats,
            candidates=candidates,
            reservoir=reservoir,
            documents={item.doc_id: item for item in tokenized if item.doc_id in named},
            counts=counts,
        )

    def _batches(self, documents: Sequence[TokenizedDocument]) -> Iterator[Batch]:
        ordered = sorted(documents, key=lambda item: (len(item.ids), item.doc_id))
        start = 0
        while start < len(ordered):
            stop = start + 1
            while (
                stop < len(ordered)
                and (stop + 1 - start) * len(ordered[stop].ids) <= self._settings.batch_tokens
            ):
                stop += 1
            yield make_batch(ordered[start:stop], self._model.device, self._pad_id)
            start = stop

    def _forward(self, batch: Batch) -> None:
        try:
            self._model.backbone(input_ids=batch.ids, use_cache=False)
        except torch.OutOfMemoryError as error:
            raise ScanError(
                f"out of device memory at {batch.ids.numel()} padded tokens; lower "
                "scan.batch_tokens (finished shards are kept)"
            ) from error
        except (RuntimeError, IndexError) as error:
            raise ScanError(f"the model failed on a batch: {error}") from error


def write_shard(result: ShardResult, folder: Path, settings: ScanSettings) -> None:
    """Writes a shard's five Parquet files (see ``shard_files``) into an existing folder."""
    tables = {
        "examples": _examples_table(result, settings),
        "documents": _documents_table(result),
        "stats": _stats_table(result.stats),
        "reservoir": _reservoir_table(result, settings),
        "counts": _counts_table(result.counts),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def _group_by_layer(
    directions: DirectionSet,
) -> dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    layers: dict[int, list[int]] = {}
    for index, direction in enumerate(directions.directions):
        layers.setdefault(direction.hookpoint.layer, []).append(index)
    return {
        layer: (
            np.asarray(indices, dtype=np.int64),
            np.stack([directions.directions[index].vector for index in indices]),
        )
        for layer, indices in layers.items()
    }


def _count(documents: Sequence[TokenizedDocument], counts: Counter[CountKey]) -> None:
    for item in documents:
        counts["documents", item.source, None] += 1
        counts["tokens", item.source, None] += len(item.ids)
        counts["excluded", "beginning of sequence", None] += int(item.special.sum())
        counts["noted", "documents cut at scan.max_tokens", None] += int(item.cut)
        for role, n in enumerate(np.bincount(item.roles, minlength=len(ROLES))):
            counts["roles", ROLES[role], None] += int(n)


def _priority(item: TokenizedDocument, seed: int) -> int:
    """A number that orders documents at random, the same for equal texts and whatever the shard."""
    digest = hashlib.blake2b(f"{seed}:{item.text_hash}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _reservoir(
    documents: Sequence[TokenizedDocument], settings: ScanSettings
) -> tuple[tuple[int, TokenizedDocument], ...]:
    ranked = sorted(
        ((_priority(item, settings.seed), item) for item in documents),
        key=lambda pair: (pair[0], pair[1].doc_id),
    )
    chosen: dict[int, tuple[int, TokenizedDocument]] = {}
    for priority, item in ranked:
        chosen.setdefault(item.text_hash, (priority, item))
        if len(chosen) == settings.reservoir:
            break
    return tuple(chosen.values())


def _examples_table(result: ShardResult, settings: ScanSettings) -> pa.Table:
    found = result.candidates
    lengths = np.asarray(
        [len(result.documents[int(doc_id)].ids) for doc_id in found.doc_id], dtype=np.int64
    )
    start = np.maximum(found.position - settings.window, 0)
    stop = np.minimum(found.position + settings.window + 1, lengths)
    column = np.arange(2 * settings.window + 1)[None, :]
    first = (start - found.position + settings.window)[:, None]
    inside = (column >= first) & (column < first + (stop - start)[:, None])
    offsets = np.concatenate([[0], np.cumsum(stop - start)]).astype(np.int32)
    return pa.table(
        [
            pa.array(found.group // 2 // len(ROLES), pa.int32()),
            pa.array(found.group // 2 % len(ROLES), pa.uint8()),
            pa.array(found.group % 2, pa.uint8()),
            found.value,
            found.doc_id,
            found.text_hash,
            found.position,
            found.duplicates,
            pa.array(start, pa.int32()),
            pa.ListArray.from_arrays(offsets, found.windows[inside]),
        ],
        schema=EXAMPLES_SCHEMA,
    )


def _documents_table(result: ShardResult) -> pa.Table:
    items = [result.documents[doc_id] for doc_id in sorted(result.documents)]
    return pa.table(
        [
            [item.doc_id for item in items],
            [item.source for item in items],
            [item.text for item in items],
            [item.ends.astype(np.uint32) for item in items],
            [item.roles for item in items],
        ],
        schema=DOCUMENTS_SCHEMA,
    )


def _stats_table(stats: Stats) -> pa.Table:
    where = np.nonzero(stats.n)
    return pa.table(
        [
            pa.array(where[0], pa.int32()),
            pa.array(where[1], pa.uint8()),
            stats.n[where],
            stats.total[where],
            stats.squares[where],
            stats.minimum[where],
            stats.maximum[where],
            pa.FixedSizeListArray.from_arrays(stats.counts[where].ravel(), HISTOGRAM_BINS),
        ],
        schema=STATS_SCHEMA,
    )


def _reservoir_table(result: ShardResult, settings: ScanSettings) -> pa.Table:
    rows: list[tuple[int, int, int, int, int]] = []
    for priority, item in result.reservoir:
        size = min(2 * settings.window + 1, len(item.ids))
        # The window's place follows from the document's own number, so that it is random but fixed.
        start = (priority >> 8) % (len(item.ids) - size + 1)
        rows.append((priority, item.text_hash, item.doc_id, start, size))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(RESERVOIR_SCHEMA)
    arrays = [
        pa.array(column, field.type)
        for column, field in zip(columns, RESERVOIR_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=RESERVOIR_SCHEMA)


def _counts_table(counts: Counter[CountKey]) -> pa.Table:
    rows = [
        {"what": what, "name": name, "layer": layer, "n": n}
        for (what, name, layer), n in counts.items()
        if n
    ]
    rows.sort(
        key=lambda row: (row["what"], row["name"], -1 if row["layer"] is None else row["layer"])
    )
    return pa.Table.from_pylist(rows, schema=COUNTS_SCHEMA)
