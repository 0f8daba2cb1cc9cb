"""Which documents go through the model together? Batches of like length, and who is where in them.

Documents are sorted by length, longest first, and cut into batches of at most ``batch_tokens``
padded tokens. Padding is on the right by default: attention is causal, so no token ever sees it and
no mask is needed. The result of a scan does not depend on the batches beyond rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from builder.activations.tokens import TokenizedDocument
from builder.records import ROLES

#: The role of places whose activation counts for nothing: padding, BOS and repeated context.
NO_ROLE = len(ROLES)

Padding = Literal["right", "left"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pieces of documents side by side, ``ids`` int64 [B, T], on the device.

    Places are counted through [B * T] = [N]: ``role`` [N] is a place's role or NO_ROLE, ``segment``
    [N] the number of the (piece, role) it belongs to, or S. ``segment_row`` and ``segment_role``
    [S] say what a segment is, ``spans`` [S, 2] where it starts and how many places on it ends. A
    piece's tokens stand at ``first`` [B] to ``first + lengths`` of its row. ``mask`` and
    ``positions`` [B, T] are None where the model needs none.

    On the host: ``prefixes`` uint64 [B, T], hashes of all tokens of the piece up to each (where two
    are equal the model has read the same, and the activations are equal), ``segments`` [S, 2] (row
    and role) and ``starts`` [B] (as ``first``).
    """

    pieces: Sequence[TokenizedDocument]
    ids: torch.Tensor
    mask: torch.Tensor | None
    positions: torch.Tensor | None
    role: torch.Tensor
    segment: torch.Tensor
    segment_row: torch.Tensor
    segment_role: torch.Tensor
    spans: torch.Tensor
    first: torch.Tensor
    lengths: torch.Tensor
    prefixes: npt.NDArray[np.uint64]
    segments: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]


def cut_batches(
    pieces: Sequence[TokenizedDocument], batch_tokens: int
) -> Iterator[Sequence[TokenizedDocument]]:
    """The pieces, longest first, in groups of at most ``batch_tokens`` padded tokens.

    A longer piece makes a group of its own.
    """
    ordered = sorted(pieces, key=lambda item: (-len(item.ids), item.document.doc_id, item.piece))
    start = 0
    while start < len(ordered):
        rows = max(1, batch_tokens // len(ordered[start].ids))
        yield ordered[start : start + rows]
        start += rows


def make_batch(
    pieces: Sequence[TokenizedDocument],
    device: torch.device,
    pad_id: int,
    padding: Padding = "right",
) -> Batch:
    """A batch of pieces on ``device``."""
    lengths = np.asarray([len(item.ids) for item in pieces])
    rows, longest = len(pieces), int(lengths.max())
    first = np.zeros(rows, dtype=np.int64) if padding == "right" else longest - lengths
    ids = np.full((rows, longest), pad_id, dtype=np.int64)
    role = np.full((rows, longest), NO_ROLE, dtype=np.int64)
    real = np.zeros((rows, longest), dtype=np.bool_)
    for row, item in enumerate(pieces):
        where = slice(first[row], first[row] + lengths[row])
        ids[row, where] = item.ids
        real[row, where] = True
        roles = item.roles.astype(np.int64)
        roles[item.special] = NO_ROLE
        roles[: item.context] = NO_ROLE
        role[row, where] = roles
    key = np.arange(rows)[:, None] * NO_ROLE + role
    counted = np.nonzero(role.ravel() != NO_ROLE)[0]
    known, segment = np.unique(key.ravel()[counted], return_inverse=True)
    segments = np.full(rows * longest, len(known), dtype=np.int64)
    segments[counted] = segment
    spans = np.zeros((len(known), 2), dtype=np.int64)
    spans[segment[::-1], 0] = counted[::-1]
    spans[segment, 1] = counted + 1
    spans[:, 1] -= spans[:, 0]
    left = padding == "left"
    positions = np.maximum(np.arange(longest)[None, :] - first[:, None], 0)

    return Batch(
        pieces=pieces,
        ids=on_device(ids, device),
        mask=on_device(real.astype(np.int64), device) if left else None,
        positions=on_device(positions, device) if left else None,
        role=on_device(role.reshape(-1), device),
        segment=on_device(segments, device),
        segment_row=on_device(known // NO_ROLE, device),
        segment_role=on_device(known % NO_ROLE, device),
        spans=on_device(spans, device),
        first=on_device(first, device),
        lengths=on_device(lengths, device),
        prefixes=_prefixes(ids, real, positions),
        segments=np.stack([known // NO_ROLE, known % NO_ROLE], axis=1),
        starts=first,
    )


def on_device(values: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """A copy of an array on ``device``; the host does not wait for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _prefixes(
    ids: npt.NDArray[np.int64], real: npt.NDArray[np.bool_], positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Hashes [B, T] of each row's real tokens up to each: sums of a mixed (position, token)."""
    # The finalizer of splitmix64 (Steele, Lea & Flood 2014) on position and token in one number.
    mixed = (ids.astype(np.uint64) << np.uint64(32)) + positions.astype(np.uint64) + np.uint64(1)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    found: npt.NDArray[np.uint64] = np.where(real, mixed, np.uint64(0)).cumsum(
        axis=1, dtype=np.uint64
    )
    return found
