"""Reading one matrix in blocks, and hashing what goes by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builder.weights import matrix
from builder.weights.checkpoint import Checkpoint
from builder.weights.delta import whole
from builder.weights.infer import find_layout
from builder.weights.layout import match
from builder.weights.matrix import Digest, blocks

from . import pico


def hashed(*parts: torch.Tensor | str) -> bytes:
    digest = Digest()
    for part in parts:
        if isinstance(part, str):
            digest.word(part)
        else:
            digest.tensor(part)
    return digest.digest()


def test_hash_tells_type_shape_and_order_apart() -> None:
    a, b = torch.arange(6.0), torch.zeros(6)
    seen = {
        hashed(a, b),
        hashed(b, a),
        hashed(a.reshape(2, 3), b),
        hashed(a.to(torch.bfloat16), b),
        hashed(a, "minus", b),
    }
    assert len(seen) == 5
    assert hashed(a, b) == hashed(a.clone(), b.clone())


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "olmo2"])
def test_matrix_and_hash_do_not_depend_on_the_blocks(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pico.save(model_type, tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    found = match(find_layout(checkpoint.config), checkpoint)
    place = found.hookpoints[1]
    seen = []
    for entries in (10**6, 200, 1):
        monkeypatch.setattr(matrix, "_BLOCK", entries)
        digest = Digest()
        count = sum(1 for _ in blocks(checkpoint, found, place, digest))
        dense = whole(checkpoint, found, place).dense
        assert dense is not None
        seen.append((dense, digest.digest(), count))
    assert seen[0][2] == 1 < seen[1][2] < seen[2][2]
    for values, digest_bytes, _ in seen[1:]:
        assert torch.equal(values, seen[0][0])
        assert digest_bytes == seen[0][1]
