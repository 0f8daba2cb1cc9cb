"""Looking up what clears the bar, all at once or as many as a device brings along unasked."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from builder.activations.batch import make_batch
from builder.activations.buffers import Buffers
from builder.activations.candidates import Candidates
from builder.activations.entrants import Entrants
from builder.activations.tokens import TokenizedDocument
from tests import micro
from tests.activations.scanning import marked, tokenizer

WIDTHS = {0: 3, 2: 5}


def pieces(n: int) -> list[TokenizedDocument]:
    found = tokenizer(micro.make_model()).tokenize(marked(micro.documents(n)))
    return [item for item in found if isinstance(item, TokenizedDocument)]


def candidates(capacity: int | None, padding: str = "right") -> Candidates:
    torch.manual_seed(0)
    items = pieces(9)
    batch = make_batch(items, torch.device("cpu"), 0, padding)  # type: ignore[arg-type]
    buffers = Buffers(WIDTHS, 1, torch.device("cpu"))
    buffers.fit(batch.ids.numel(), batch.ids.shape[1])
    best = torch.full((2, len(batch.segments), 8), -torch.inf)
    for layer in WIDTHS:
        activation = buffers.activation(layer, 0)
        # By the token and its place in the piece, whatever the padding.
        for row, item in enumerate(items):
            first = row * batch.ids.shape[1] + int(batch.starts[row])
            values = torch.rand(len(item.ids), WIDTHS[layer])
            activation[first : first + len(item.ids)] = values
        for number in range(len(batch.segments)):
            found = activation[batch.segment == number]
            best[0, number, buffers.columns(layer)] = found.amax(dim=0)
            best[1, number, buffers.columns(layer)] = -found.amin(dim=0)
    bar = torch.full_like(best, 0.9)
    bar[1] = -0.1
    return Entrants(batch, best, bar, buffers, 4, capacity).candidates(np.arange(8) * 10)


def in_order(found: Candidates) -> Candidates:
    return found.at(np.lexsort((found.group, found.doc_id)))


@pytest.mark.parametrize("capacity", [5, 10_000])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_any_capacity_and_padding_gives_the_same_entrants(capacity: int, padding: str) -> None:
    whole, part = in_order(candidates(None)), in_order(candidates(capacity, padding))
    assert len(whole) > 50
    for field in fields(Candidates):
        assert np.array_equal(getattr(whole, field.name), getattr(part, field.name)), field.name


def test_nothing_that_clears_the_bar_is_no_candidates() -> None:
    batch = make_batch(pieces(2), torch.device("cpu"), 0)
    buffers = Buffers(WIDTHS, 2, torch.device("cpu"))
    buffers.fit(batch.ids.numel(), batch.ids.shape[1])
    best = torch.zeros(2, len(batch.segments), 8)
    for capacity in (None, 4):
        found = Entrants(batch, best, best + 1, buffers, 4, capacity)
        nothing = found.candidates(np.arange(8))
        assert len(nothing) == 0
        assert nothing.windows.shape == (0, 2, 9)
