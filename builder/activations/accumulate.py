"""What is kept of the activations? Extremes, histograms, moments, windows; reduced on the device.

For each layer one call of :meth:`Accumulator.observe` takes the residual stream of a batch and
leaves behind: histogram counts and moments per direction and role, and the documents that may
belong to the ``top`` ones of a direction, role and pole, with the activations around their peak.
The residual stream itself is never kept. All loops over tokens, documents and directions are
tensor operations.

activation = cos(resid_t, u), in float32 whatever the model's dtype (Watch the Weights,
arXiv 2508.00161, section 3; ranges and extremes per role as there).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from builder.activations.tokens import TokenizedDocument
from builder.records import ACTIVATION_SCALE, HISTOGRAM_BINS, POLES, ROLES

_R = len(ROLES)
#: Entrants are admitted this far below the threshold, so that equal texts whose activations
#: differ by rounding are all counted; the exact order is made on the host.
_SLACK = 1e-5
#: Candidate windows held before they are thinned out to the ``top`` ones.
_PRUNE_AT = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Documents side by side: ``ids`` int64 [B, T], right-padded.

    The tokens of all documents (no padding) are listed once, sorted by document, role and
    position: ``flat`` [n] is their place in [B * T], ``segment`` [n] numbers the (document, role)
    they belong to, ``role`` [n] their role and ``usable`` [n] is False for BOS. ``row`` [B, T] is
    the place of a token in that list (0 for padding). ``segment_document`` and ``segment_role``
    [S] say what a segment is; ``lengths`` [B] counts tokens. Everything is on the device.
    """

    documents: Sequence[TokenizedDocument]
    ids: torch.Tensor
    flat: torch.Tensor
    document: torch.Tensor
    role: torch.Tensor
    usable: torch.Tensor
    segment: torch.Tensor
    segment_document: torch.Tensor
    segment_role: torch.Tensor
    row: torch.Tensor
    lengths: torch.Tensor
    all_usable: bool


def make_batch(documents: Sequence[TokenizedDocument], device: torch.device, pad_id: int) -> Batch:
    """A batch of tokenized documents on ``device``."""
    lengths = np.asarray([len(item.ids) for item in documents])
    longest = int(lengths.max())
    ids = np.full((len(documents), longest), pad_id, dtype=np.int64)
    for place, item in enumerate(documents):
        ids[place, : len(item.ids)] = item.ids
    document = np.repeat(np.arange(len(documents)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    role = np.concatenate([item.roles for item in documents]).astype(np.int64)
    usable = ~np.concatenate([item.special for item in documents])
    order = np.lexsort((position, role, document))
    document, position, role, usable = (
        values[order] for values in (document, position, role, usable)
    )
    _, first, segment = np.unique(document * _R + role, return_index=True, return_inverse=True)
    flat = document * longest + position
    row = np.zeros(len(documents) * longest, dtype=np.int64)
    row[flat] = np.arange(len(flat))

    def on_device(values: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)

    return Batch(
        documents=documents,
        ids=on_device(ids),
        flat=on_device(flat),
        document=on_device(document),
        role=on_device(role),
        usable=on_device(usable),
        segment=on_device(segment),
        segment_document=on_device(document[first]),
        segment_role=on_device(role[first]),
        row=on_device(row.reshape(len(documents), longest)),
        lengths=on_device(lengths),
        all_usable=bool(usable.all()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Stats:
    """Sums over tokens per direction and role: [D, R], histogram counts [D, R, bins]."""

    n: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    minimum: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Candidates:
    """Windows that may belong to the best, as parallel arrays of one length.

    ``group`` = (direction * R + role) * 2 + pole. ``windows`` int16 [n, 2w + 1] hold the
    activations around the peak, the peak in the middle; places outside the document hold 0.
    """

    group: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]
    doc_id: npt.NDArray[np.int64]
    text_hash: npt.NDArray[np.uint64]
    position: npt.NDArray[np.int32]
    duplicates: npt.NDArray[np.int32]
    windows: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.group)


class Accumulator:
    """Collects what one shard leaves behind; see the module's head."""

    def __init__(
        self,
        directions: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]],
        *,
        n_directions: int,
        top: int,
        window: int,
        sink_factor: float,
        device: torch.device,
    ) -> None:
        """``directions[layer]`` = (indices [D_l], unit vectors [D_l, d_model])."""
        self._top = top
        self._window = window
        self._sink_factor = sink_factor
        self._device = device
        self._n_directions = n_directions
        self._indices = {
            layer: torch.from_numpy(indices).to(device)
            for layer, (indices, _) in directions.items()
        }
        self._vectors = {
            layer: torch.from_numpy(np.ascontiguousarray(vectors.T)).to(device)
            for layer, (_, vectors) in directions.items()
        }
        self._sums = {layer: _LayerSums(len(i), device) for layer, (i, _) in directions.items()}
        # [pole, D, R]; a candidate must exceed this, poles turned so that larger is better.
        self._threshold = torch.full((2, n_directions, _R), -torch.inf, device=device)
        self._pending: list[Candidates] = []
        self._held = 0
        self._batch: Batch | None = None
        self.sinks: Counter[int] = Counter()

    def begin(self, batch: Batch) -> None:
        """Says which batch the following calls of :meth:`observe` are about."""
        self._batch = batch

    def observe(self, layer: int, resid: torch.Tensor) -> None:
        """Takes in ``resid`` [B, T, d_model], the output of decoder layer ``layer``."""
        batch = self._batch
        if batch is None:
            raise RuntimeError("observe() before begin()")
        rows = resid.reshape(-1, resid.shape[-1]).index_select(0, batch.flat).float()
        norm = torch.linalg.vector_norm(rows, dim=-1)
        usable = self._usable(layer, batch, norm)
        # [n, D_l]; a zero vector has no direction, its activation is 0 rather than NaN.
        activation = (rows @ self._vectors[layer]) / norm.clamp_min(1e-30)[:, None]
        self._sums[layer].add(activation, batch.role, usable)
        self._take_extremes(layer, batch, activation, usable)
        if self._held >= _PRUNE_AT:
            self._prune()

    def finish(self) -> tuple[Stats, Candidates]:
        """The statistics and the best candidates of everything observed."""
        self._prune()
        shape = (self._n_directions, _R)
        stats = Stats(
            n=np.zeros(shape, dtype=np.int64),
            total=np.zeros(shape),
            squares=np.zeros(shape),
            minimum=np.full(shape, np.inf, dtype=np.float32),
            maximum=np.full(shape, -np.inf, dtype=np.float32),
            counts=np.zeros((*shape, HISTOGRAM_BINS), dtype=np.int64),
        )
        for layer, sums in self._sums.items():
            where = self._indices[layer].cpu().numpy()
            stats.n[where] = sums.n.cpu().numpy()[None, :]
            stats.total[where] = sums.total.T.cpu().numpy()
            stats.squares[where] = sums.squares.T.cpu().numpy()
            stats.minimum[where] = sums.minimum.T.cpu().numpy()
            stats.maximum[where] = sums.maximum.T.cpu().numpy()
            stats.counts[where] = sums.counts.view(_R, -1, HISTOGRAM_BINS).transpose(0, 1).cpu()
        empty = _no_candidates(2 * self._window + 1)
        return stats, self._pending[0] if self._pending else empty

    def _usable(self, layer: int, batch: Batch, norm: torch.Tensor) -> torch.Tensor:
        """Tokens [n] that count: no BOS, and no norm far above the document's median (a sink)."""
        norms = norm.new_full(batch.ids.shape, torch.nan)
        norms.view(-1)[batch.flat] = torch.where(batch.usable, norm, torch.nan)
        median = norms.nanmedian(dim=1).values
        sink = batch.usable & (norm > self._sink_factor * median[batch.document])
        self.sinks[layer] += int(sink.sum())
        return batch.usable & ~sink

    def _take_extremes(
        self, layer: int, batch: Batch, activation: torch.Tensor, usable: torch.Tensor
    ) -> None:
        n_segments = len(batch.segment_document)
        spread = batch.segment[:, None].expand_as(activation)
        indices = self._indices[layer]
        sums = self._sums[layer]
        for pole, sign in enumerate((1.0, -1.0)):
            signed = torch.where(usable[:, None], activation * sign, -torch.inf)
            best = signed.new_full((n_segments, signed.shape[1]), -torch.inf)
            best.scatter_reduce_(0, spread, signed, "amax")
            sums.widen(POLES[pole], best * sign, batch.segment_role)
            threshold = self._threshold[pole][indices][:, batch.segment_role].T  # [S, D_l]
            enters = (best > threshold - _SLACK) & best.isfinite()
            segment, column = torch.nonzero(enters, as_tuple=True)
            if len(segment):
                candidates = self._candidates(
                    batch, activation, signed, segment, column, indices, pole
                )
                self._pending.append(candidates)
                self._held += len(candidates)

    def _candidates(
        self,
        batch: Batch,
        activation: torch.Tensor,
        signed: torch.Tensor,
        segment: torch.Tensor,
        column: torch.Tensor,
        indices: torch.Tensor,
        pole: int,
    ) -> Candidates:
        longest = batch.ids.shape[1]
        document = batch.segment_document[segment]
        # Tokens of a segment are neighbours in the list: [E, longest] places, masked to the segment
        first = torch.searchsorted(batch.segment, segment)
        places = (first[:, None] + torch.arange(longest, device=first.device)).clamp_max(
            len(signed) - 1
        )
        values = signed[places, column[:, None]]
        values = values.masked_fill(batch.segment[places] != segment[:, None], -torch.inf)
        value, at = values.max(dim=1)
        peak_row = places.gather(1, at[:, None])[:, 0]
        position = batch.flat[peak_row] - document * longest
        steps = torch.arange(-self._window, self._window + 1, device=first.device)
        around = position[:, None] + steps
        inside = (around >= 0) & (around < batch.lengths[document][:, None])
        rows = batch.row[document[:, None], around.clamp(0, longest - 1)]
        windows = torch.where(inside, activation[rows, column[:, None]], 0.0)
        quantized = (windows * ACTIVATION_SCALE).round().clamp(-ACTIVATION_SCALE, ACTIVATION_SCALE)
        group = (indices[column] * _R + batch.segment_role[segment]) * 2 + pole
        owners = document.cpu().numpy()
        doc_ids = np.asarray([item.doc_id for item in batch.documents], dtype=np.int64)
        hashes = np.asarray([item.text_hash for item in batch.documents], dtype=np.uint64)
        sign = np.float32(1.0 if pole == 0 else -1.0)
        return Candidates(
            group=group.cpu().numpy(),
            value=value.cpu().numpy() * sign,
            doc_id=doc_ids[owners],
            text_hash=hashes[owners],
            position=position.to(torch.int32).cpu().numpy(),
            duplicates=np.zeros(len(owners), dtype=np.int32),
            windows=quantized.to(torch.int16).cpu().numpy(),
        )

    def _prune(self) -> None:
        if not self._pending:
            return
        kept = best_candidates(self._pending, self._top)
        self._pending = [kept]
        self._held = 0
        # The value of the last place, where all places are taken, is the bar for newcomers.
        group, first, size = np.unique(kept.group, return_index=True, return_counts=True)
        full = size >= self._top
        last = kept.value[first[full] + self._top - 1]
        pole = group[full] % 2
        signed = np.where(pole == 0, last, -last).astype(np.float32)
        threshold = torch.from_numpy(signed).to(self._device)
        at = torch.from_numpy(group[full]).to(self._device)
        self._threshold[at % 2, at // 2 // _R, at // 2 % _R] = threshold


def best_candidates(parts: Sequence[Candidates], top: int) -> Candidates:
    """The ``top`` candidates of each group, equal texts collapsed, best first within a group.

    The copy with the lowest document id stands for all of a text, ``duplicates`` counts the
    others. Ties are broken by document id, then position. Associative over ``parts``.
    """
    merged = Candidates(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in Candidates.__dataclass_fields__
        )
    )
    if not len(merged):
        return merged
    by_text = np.lexsort((merged.doc_id, merged.text_hash, merged.group))
    group, text = merged.group[by_text], merged.text_hash[by_text]
    is_first = np.ones(len(by_text), dtype=np.bool_)
    is_first[1:] = (group[1:] != group[:-1]) | (text[1:] != text[:-1])
    starts = np.nonzero(is_first)[0]
    copies = np.add.reduceat(merged.duplicates[by_text] + 1, starts)
    leaders = by_text[starts]
    signed = np.where(merged.group[leaders] % 2 == 0, -merged.value[leaders], merged.value[leaders])
    ranked = np.lexsort((merged.position[leaders], merged.doc_id[leaders], signed))
    order = ranked[np.argsort(merged.group[leaders][ranked], kind="stable")]
    sorted_group = merged.group[leaders][order]
    new_group = np.ones(len(order), dtype=np.bool_)
    new_group[1:] = sorted_group[1:] != sorted_group[:-1]
    group_start = np.nonzero(new_group)[0]
    place = np.arange(len(order)) - np.repeat(group_start, np.diff([*group_start, len(order)]))
    keep = order[place < top]
    chosen = leaders[keep]
    kept = Candidates(*(getattr(merged, name)[chosen] for name in Candidates.__dataclass_fields__))
    kept.duplicates = (copies[keep] - 1).astype(np.int32)
    return kept


def _no_candidates(width: int) -> Candidates:
    return Candidates(
        group=np.zeros(0, dtype=np.int64),
        value=np.zeros(0, dtype=np.float32),
        doc_id=np.zeros(0, dtype=np.int64),
        text_hash=np.zeros(0, dtype=np.uint64),
        position=np.zeros(0, dtype=np.int32),
        duplicates=np.zeros(0, dtype=np.int32),
        windows=np.zeros((0, width), dtype=np.int16),
    )


class _LayerSums:
    """Running sums of one layer's directions on the device: [R, D_l] and flat histograms."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.n = torch.zeros(_R, dtype=torch.int64, device=device)
        self.total = torch.zeros(_R, width, dtype=torch.float64, device=device)
        self.squares = torch.zeros(_R, width, dtype=torch.float64, device=device)
        self.minimum = torch.full((_R, width), torch.inf, device=device)
        self.maximum = torch.full((_R, width), -torch.inf, device=device)
        self.counts = torch.zeros(_R * width * HISTOGRAM_BINS, dtype=torch.int64, device=device)
        self._columns = torch.arange(width, dtype=torch.int32, device=device) * HISTOGRAM_BINS
        self._width = width

    def add(self, activation: torch.Tensor, role: torch.Tensor, usable: torch.Tensor) -> None:
        """Adds the tokens' activations [n, D_l], where ``usable`` [n], to their ``role`` [n]."""
        belongs = torch.zeros(len(role), _R, device=activation.device)
        belongs.scatter_(1, role[:, None], usable[:, None].to(belongs.dtype))
        self.n += belongs.sum(dim=0).long()
        self.total += (belongs.T @ activation).double()
        self.squares += (belongs.T @ activation.square()).double()
        half = HISTOGRAM_BINS // 2
        bins = ((activation + 1.0) * half).int().clamp_(0, HISTOGRAM_BINS - 1)
        # Tokens that do not count fall into a bin behind the last one.
        size = _R * self._width * HISTOGRAM_BINS
        offset = role.int()[:, None] * (self._width * HISTOGRAM_BINS) + self._columns
        bins = torch.where(usable[:, None], bins + offset, size)
        self.counts += torch.bincount(bins.view(-1), minlength=size + 1)[:size]

    def widen(self, pole: str, best: torch.Tensor, role: torch.Tensor) -> None:
        """Widens the running range by the segments' extremes [S, D_l] of ``role`` [S]."""
        spread = role[:, None].expand_as(best)
        if pole == "max":
            self.maximum.scatter_reduce_(0, spread, best, "amax")
        else:
            self.minimum.scatter_reduce_(0, spread, best, "amin")
