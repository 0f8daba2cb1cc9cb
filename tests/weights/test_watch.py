"""Following what modules give through the operations that stand between them and the stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from builder.weights.watch import watch

WIDTH = 8


class Block(nn.Module):
    """Two linear modules and one way of putting their outputs together."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.first(x), self.second(x)
        by_token = torch.sigmoid(x[..., :1])
        made: dict[str, Any] = {
            "sum": lambda: first + second,
            "in place": lambda: second.add_(first),
            "by token": lambda: first * by_token,
            "from the left": lambda: 0.5 * (by_token * first),
            "reshaped": lambda: first.reshape(-1, WIDTH).clone().view(x.shape).to(torch.float16),
            "over experts": lambda: first[None].sum(dim=0),
            "by channel": lambda: first * self.scale,
            "with the stream": lambda: first + x,
            "stream in place": lambda: first.add_(x),
            "activated": lambda: torch.relu(first),
            "of both": lambda: first * second,
            "over channels": lambda: first.sum(dim=-1, keepdim=True) + x,
        }
        out: torch.Tensor = made[self.way]()
        return out


class Model(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.embed, self.block = nn.Embedding(4, WIDTH), Block(way)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        out: torch.Tensor = self.block(self.embed(input_ids))
        return out


@pytest.mark.parametrize(
    ("way", "sources"),
    [
        ("sum", {"first", "second"}),
        ("in place", {"first", "second"}),
        ("by token", {"first"}),
        ("from the left", {"first"}),
        ("reshaped", {"first"}),
        ("over experts", {"first"}),
        ("by channel", set()),
        ("with the stream", set()),
        ("stream in place", set()),
        ("activated", set()),
        ("of both", set()),
        ("over channels", set()),
    ],
)
def test_block_gives_the_sum_of_modules_as_long_as_nothing_turns_it(
    way: str, sources: set[str]
) -> None:
    with torch.device("meta"):
        model = Model(way)
    block: Any = model.block
    watched = {"block": block, "first": block.first, "second": block.second}
    calls = watch(model, watched, lambda module: isinstance(module, nn.Linear))
    assert calls["block"].made == sources
    assert calls["first"].given == set()
