"""What does one shard of the corpus leave behind? A pure function from documents to results.

``Scanner`` holds the loaded model (and, where asked for, its base) and the directions;
:meth:`Scanner.scan` reads documents through the model once, all directions of all layers in the
same forward pass, and gives a :class:`ShardResult`, which ``shard_tables`` turns into files. Who
calls it, and for which shards, is the executor's business.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from builder.activations.accumulate import Accumulator, Extremes, WindowOf, by_layer
from builder.activations.batch import Batch, Padding, cut_batches, make_batch
from builder.activations.candidates import Candidates
from builder.activations.hooks import first_layers, residual_hooks
from builder.activations.model import ScannedModel
from builder.activations.shard_files import length_class
from builder.activations.sums import Stats
from builder.activations.tokens import Dropped, TokenizedDocument
from builder.config import ScanSettings
from builder.errors import ScanError
from builder.records import CONTENT_ROLES, LEVELS, ROLES, DirectionSet

#: (what, name, layer) as in COUNTS_SCHEMA.
CountKey = tuple[str, str, int | None]
#: The pieces of one document, in order.
Pieces = list[TokenizedDocument]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A window of a random document: ``start`` counts in the piece; activations [M, D, length]."""

    piece: TokenizedDocument
    start: int
    activations: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class ShardResult:
    """Everything a shard leaves behind.

    ``documents`` are the pieces of each document; ``extremes`` are of these documents, in order.
    """

    documents: Sequence[Pieces]
    stats: Stats
    candidates: Candidates
    extremes: Extremes
    samples: tuple[Sample, ...]
    counts: Counter[CountKey]


class Scanner:
    """A loaded model with a run's directions, ready to scan shards."""

    def __init__(
        self,
        model: ScannedModel,
        directions: DirectionSet,
        settings: ScanSettings,
        base: ScannedModel | None = None,
        *,
        padding: Padding = "right",
    ) -> None:
        """Checks that the directions fit the models; raises ScanError if they do not.

        ``padding`` changes nothing but rounding; on the left it needs a mask, which costs.
        """
        self._model = model
        self._base = base
        self._settings = settings
        self._padding = padding
        self._n_directions = len(directions.directions)
        self._layers = by_layer(directions)
        pad = model.tokenizer.pad_token_id
        self._pad_id = 0 if pad is None else int(pad)
        for which in (model, base):
            if which is not None and max(self._layers) >= len(which.layers):
                raise ScanError(
                    f"the directions reach layer {max(self._layers)}, "
                    f"the model has {len(which.layers)} decoder layers"
                )

    def scan(
        self,
        items: Sequence[TokenizedDocument | Dropped],
        on_batch: Callable[[int, int], None] = lambda _documents, _tokens: None,
    ) -> ShardResult:
        """What these documents leave behind; depends on nothing else.

        ``on_batch(documents, tokens)`` is told of each batch that is through.
        """
        settings = self._settings
        documents, counts = _grouped(items)
        number = {pieces[0].document.doc_id: n for n, pieces in enumerate(documents)}
        sampled = dict(_sampled(documents, 2 * settings.window + 1))
        accumulator = Accumulator(
            self._layers,
            n_directions=self._n_directions,
            n_documents=len(documents),
            top=settings.top,
            window=settings.window,
            sink_factor=settings.sink_factor,
            device=self._model.device,
            with_base=self._base is not None,
        )
        with torch.inference_mode(), contextlib.ExitStack() as stack:
            self._watch(stack, self._model, accumulator.observe)
            if self._base is not None:
                self._watch(stack, self._base, accumulator.observe_base)
            flat = [piece for pieces in documents for piece in pieces]
            for pieces in cut_batches(flat, settings.batch_tokens):
                rows = np.asarray([number[item.document.doc_id] for item in pieces])
                try:
                    self._scan_batch(accumulator, pieces, rows, _windows(pieces, rows, sampled))
                except torch.OutOfMemoryError as error:
                    raise ScanError(
                        f"out of device memory at {settings.batch_tokens} tokens a batch; lower "
                        "scan.batch_tokens (finished shards are kept)"
                    ) from error
                tokens = sum(len(item.ids) for item in pieces)
                on_batch(sum(item.piece == 0 for item in pieces), tokens)
            stats, candidates, extremes = accumulator.finish()
        if not np.isfinite(stats.total).all():
            raise ScanError(
                "the model's residual stream holds NaN or Inf; try scan.dtype = 'float32'"
            )
        _count(documents, counts)
        for layer, sinks in accumulator.sinks().items():
            counts["excluded", "attention sink", layer] += sinks
        samples = tuple(
            Sample(documents[n][sampled[n][0]], sampled[n][1], activations)
            for n, activations in sorted(accumulator.windows().items())
        )
        return ShardResult(documents, stats, candidates, extremes, samples, counts)

    def _scan_batch(
        self,
        accumulator: Accumulator,
        pieces: Sequence[TokenizedDocument],
        numbers: npt.NDArray[np.int64],
        windows: Sequence[WindowOf],
    ) -> None:
        batch = make_batch(pieces, self._model.device, self._pad_id, self._padding)
        accumulator.begin(batch, numbers)
        if self._base is not None:
            self._forward(self._base, batch)
        self._forward(self._model, batch)
        accumulator.end(windows)

    def _watch(
        self,
        stack: contextlib.ExitStack,
        model: ScannedModel,
        observe: Callable[[int, torch.Tensor], None],
    ) -> None:
        last = max(self._layers)
        stack.enter_context(first_layers(model.backbone, model.layers, last + 1))
        stack.enter_context(residual_hooks(model.layers, sorted(self._layers), observe))

    def _forward(self, model: ScannedModel, batch: Batch) -> None:
        further = {} if batch.mask is None else {"attention_mask": batch.mask}
        if batch.positions is not None:
            further["position_ids"] = batch.positions
        try:
            model.backbone(input_ids=batch.ids, use_cache=False, **further)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError) as error:
            raise ScanError(f"the model failed on a batch: {error}") from error


def level(priority: int) -> int:
    """The level of a document (see LEVELS) by its place in the random order."""
    return min((priority & -priority).bit_length() - 1, LEVELS - 1) if priority else LEVELS - 1


def _grouped(
    items: Sequence[TokenizedDocument | Dropped],
) -> tuple[list[Pieces], Counter[CountKey]]:
    """The pieces of each document, in order, and the counts of those that were dropped."""
    documents: dict[int, Pieces] = {}
    counts: Counter[CountKey] = Counter()
    for item in items:
        if isinstance(item, Dropped):
            counts["dropped", item.reason, None] += 1
        else:
            documents.setdefault(item.document.doc_id, []).append(item)
    return list(documents.values()), counts


def _sampled(documents: Sequence[Pieces], size: int) -> list[tuple[int, tuple[int, int, int]]]:
    """(document's number, (piece's number, start in it, length)) of every sampled window.

    Its place follows from the document's own number, so that it is random but fixed.
    """
    found = []
    for n, pieces in enumerate(documents):
        document = pieces[0].document
        if document.sampled:
            chosen = (document.priority >> 8) % len(pieces)
            piece = pieces[chosen]
            own = len(piece.ids) - piece.context
            length = min(size, own)
            start = piece.context + (document.priority >> 24) % (own - length + 1)
            found.append((n, (chosen, start, length)))
    return found


def _windows(
    pieces: Sequence[TokenizedDocument],
    numbers: npt.NDArray[np.int64],
    sampled: dict[int, tuple[int, int, int]],
) -> list[WindowOf]:
    """The sampled windows that lie in these pieces of the documents with these numbers."""
    found = []
    for row, (item, n) in enumerate(zip(pieces, numbers.tolist(), strict=True)):
        if n in sampled and sampled[n][0] == item.piece:
            found.append(WindowOf(n, row, *sampled[n][1:]))
    return found


def _count(documents: Sequence[Pieces], counts: Counter[CountKey]) -> None:
    for pieces in documents:
        document = pieces[0].document
        counts["documents", document.source, None] += 1
        counts["distinct", document.source, None] += int(document.is_first)
        counts["levels", str(level(document.priority)), None] += 1
        counts["noted", "documents cut at scan.max_tokens", None] += int(pieces[-1].cut)
        for note in pieces[0].notes:
            counts["noted", note, None] += 1
        content = 0
        for item in pieces:
            own = slice(item.context, None)
            content += int((item.roles[own] < len(CONTENT_ROLES)).sum())
            counts["tokens", document.source, None] += len(item.ids) - item.context
            counts["excluded", "beginning of sequence", None] += int(item.special[own].sum())
            for role, n in enumerate(np.bincount(item.roles[own], minlength=len(ROLES))):
                counts["roles", ROLES[role], None] += int(n)
        if document.is_first and content:
            counts["length", f"{length_class(content)} {document.source}", None] += 1
