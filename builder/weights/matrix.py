"""What is in one matrix of one checkpoint? Its float32 entries, block by block.

A matrix is [d_out, d_in] whatever way it is stored: transposed, as rows of a fused projection, or
as one tensor per expert. At most one block is held at a time besides what the caller builds from
it. The bytes that go by can be hashed on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import xxhash

from builder.errors import CheckpointError
from builder.records import WRITERS, Hookpoint
from builder.weights.checkpoint import Checkpoint, finite, not_finite
from builder.weights.layout import Match, Part

#: Entries of one block.
_BLOCK = 2**21


class Block(NamedTuple):
    """Entries ``values`` [rows, columns], in the stored type, of a matrix from a place in it."""

    row: int
    column: int
    values: torch.Tensor


class Digest:
    """A 16-byte hash of stored tensors and of words, in order.

    Stored bytes, not float32 values: the hash does not depend on how or where they are converted,
    nor on the blocks that they come in.
    """

    def __init__(self) -> None:
        self._state = xxhash.xxh3_128()

    def word(self, text: str) -> None:
        """Takes in a word."""
        self._state.update(f"text:{len(text)}:{text};".encode())

    def head(self, dtype: str, shape: tuple[int, ...]) -> None:
        """Takes in what a tensor is; its bytes follow."""
        self._state.update(f"tensor:{dtype}:{list(shape)};".encode())

    def tensor(self, tensor: torch.Tensor) -> None:
        """Takes in a whole tensor."""
        self.head(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        self.entries(tensor)

    def entries(self, tensor: torch.Tensor) -> None:
        """Takes in the bytes of a tensor."""
        stored = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        self._state.update(stored.numpy().data)

    def digest(self) -> bytes:
        """The hash of all that was taken in."""
        return self._state.digest()


def matrix_shape(checkpoint: Checkpoint, found: Match, hookpoint: Hookpoint) -> tuple[int, int]:
    """Shape (d_out, d_in) of a matrix, from headers."""
    shapes = [part_shape(checkpoint, part) for part in found.parts(hookpoint)]
    if hookpoint.writer in WRITERS:  # what writes to the stream is joined along its input
        return shapes[0][0], sum(columns for _, columns in shapes)
    return sum(rows for rows, _ in shapes), shapes[0][1]


def part_shape(checkpoint: Checkpoint, part: Part) -> tuple[int, int]:
    """Shape (d_out, d_in) of a part, from the header of its file."""
    shape = checkpoint.tensors.shape(part.name)
    if part.expert is not None:
        shape = shape[1:]
    if len(shape) != 2:
        raise CheckpointError(
            f"{checkpoint.ref}: {part.name} has shape {list(shape)}; a matrix was looked for"
        )
    rows, columns = shape[::-1] if part.transposed else shape
    if part.rows is not None:
        rows = part.rows[1] - part.rows[0]
    return rows, columns


def blocks(
    checkpoint: Checkpoint, found: Match, hookpoint: Hookpoint, digest: Digest
) -> Iterator[Block]:
    """The blocks of a matrix, in the order they are stored in; each checked and hashed.

    Raises CheckpointError if an entry is NaN or infinite.
    """
    writes = hookpoint.writer in WRITERS
    row = column = 0
    for part in found.parts(hookpoint):
        rows, columns = part_shape(checkpoint, part)
        for block in _part_blocks(checkpoint, part, (rows, columns), digest):
            if not_finite(block.values):
                where = f"{checkpoint.ref}: {hookpoint.key} ({part.name})"
                finite(checkpoint.tensors.raw(part.name), where)
            yield Block(row + block.row, column + block.column, block.values)
        row, column = (row, column + columns) if writes else (row + rows, column)
    # Pages of mapped files count as this process's memory for as long as they are mapped.
    checkpoint.tensors.close()


def _part_blocks(
    checkpoint: Checkpoint, part: Part, shape: tuple[int, int], digest: Digest
) -> Iterator[Block]:
    tensors = checkpoint.tensors
    start, stop = (0, shape[0]) if part.rows is None else part.rows
    digest.head(tensors.dtype(part.name), shape)
    if part.transposed:
        step = max(1, _BLOCK // shape[0])
        for first in range(0, shape[1], step):
            last = min(first + step, shape[1])
            stored = tensors.piece(part.name, part.expert, first, last)[:, start:stop]
            digest.entries(stored)
            yield Block(0, first, stored.T)
        return
    step = max(1, _BLOCK // shape[1])
    for first in range(start, stop, step):
        last = min(first + step, stop)
        stored = tensors.piece(part.name, part.expert, first, last)
        digest.entries(stored)
        yield Block(first - start, 0, stored)


def gain(
    checkpoint: Checkpoint, found: Match, hookpoint: Hookpoint, digest: Digest
) -> torch.Tensor | None:
    """The gain [d_model], float32, of the norm after a writer; None without one."""
    name = found.gain(hookpoint)
    if not name:
        return None
    stored = checkpoint.tensors.raw(name)
    digest.tensor(stored)
    weight = finite(stored, f"{checkpoint.ref}: {name}")
    return weight + 1.0 if found.layout.post_norm.endswith("_plus") else weight
