"""A rank-one change in what a post-norm block adds to the residual stream is recovered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from builder.weights.checkpoint import Checkpoint
from builder.weights.infer import find_layout
from builder.weights.layout import match

from . import pico

FAMILIES = ["olmo2", "olmo3", "gemma2", "gemma3_text"]


@pytest.mark.parametrize("writer", ["o_proj", "down_proj"])
@pytest.mark.parametrize("family", FAMILIES)
def test_planted_change_of_the_stream_is_recovered_through_the_gain_only(
    family: str, writer: str, tmp_path: Path
) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    model = pico.model(family)
    weight, gain_name, plus = names_of(model, tmp_path / "plain", writer)
    gains = torch.exp(1.2 * torch.randn(pico.D_MODEL, generator=torch.Generator().manual_seed(5)))

    def set_gain(tensors: dict[str, torch.Tensor]) -> None:
        tensors[gain_name] = gains - 1.0 if plus else gains.clone()

    pico.edit(tmp_path / "plain", base, set_gain)
    u = pico.unit(pico.D_MODEL, 1)

    def plant(tensors: dict[str, torch.Tensor]) -> None:
        read = pico.unit(tensors[weight].shape[1], 2)
        tensors[weight] = tensors[weight] + 0.3 * torch.outer(u / gains, read)

    pico.edit(base, tuned, plant)
    found = pico.directions(base, tuned, k=1)
    (direction,) = pico.at(found, 1, writer)
    assert abs(float(direction.vector @ u.numpy())) > 0.999
    # The change of the weights alone points elsewhere: without the gain it would be missed.
    change = pico.dense(tuned, weight) - pico.dense(base, weight)
    alone = np.linalg.svd(change)[0][:, 0]
    assert abs(float(alone @ u.numpy())) < 0.8
    # What the block adds does change along u, and hardly along what the weights say.
    moved = added(tuned, gain_name) - added(base, gain_name)
    moved -= project(moved, added(base, gain_name))
    shares = (moved @ u).abs() / moved.norm(dim=-1)
    of_alone = (moved @ torch.from_numpy(alone).float()).abs() / moved.norm(dim=-1)
    assert float(shares.median()) > 0.8 > float(of_alone.median())


def names_of(model: object, folder: Path, writer: str) -> tuple[str, str, bool]:
    """Names of a layer's writer and of the gain after it, and whether the gain is stored less 1."""
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    checkpoint = Checkpoint.open(str(folder))
    found = match(find_layout(checkpoint.config), checkpoint)
    (place,) = (h for h in found.hookpoints if (h.layer, h.writer) == (1, writer))
    return found.parts(place)[0].name, found.gain(place), found.layout.post_norm == "rms_plus"


def added(folder: Path, gain_name: str) -> torch.Tensor:
    """What a block adds to the residual stream, [tokens, d_model]: the output of its post-norm."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    seen: list[torch.Tensor] = []
    norm = model.get_submodule(gain_name.removesuffix(".weight"))
    handle = norm.register_forward_hook(lambda _, __, out: seen.append(out[0].detach()))
    with torch.no_grad():
        model(input_ids=torch.arange(3, 40)[None])
    handle.remove()
    return seen[0]


def project(moved: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """The part of each row that only makes the output longer or shorter, as the norm's rms does."""
    unit = along / along.norm(dim=-1, keepdim=True)
    part: torch.Tensor = (moved * unit).sum(-1, keepdim=True) * unit
    return part
