"""Controls: what they are made of, and that shuffling leaves nothing but the entries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from builder.config import DirectionSettings
from builder.records import Hookpoint
from builder.weights.controls import plan_controls, shuffled

from . import pico


def _control(found: object, kind: str) -> list[tuple[int, str, int]]:
    return [
        (d.hookpoint.layer, d.hookpoint.module, d.rank)
        for d in found.directions  # type: ignore[attr-defined]
        if d.hookpoint.writer == kind
    ]


def test_base_and_shuffled_controls_come_from_the_writers_in_turn(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    found = pico.directions(base, tuned, k=1, base_controls=2, shuffled_controls=1)
    o_proj, down_proj = "model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj"
    assert _control(found, "base") == [
        (0, o_proj.format(0), 0),
        (0, down_proj.format(0), 1),
        (1, down_proj.format(1), 0),
        (1, o_proj.format(1), 1),
    ]
    assert _control(found, "shuffled") == [(0, down_proj.format(0), 0), (1, o_proj.format(1), 0)]
    assert found.facts["controls"] == "4 base, 2 shuffled, seed 0"


def test_further_controls_of_a_matrix_take_its_next_ranks() -> None:
    places = [Hookpoint(0, "o_proj", "o"), Hookpoint(0, "down_proj", "d")]
    settings = DirectionSettings(base_controls=5, shuffled_controls=2)
    plans = plan_controls(places, settings, has_base=True)
    assert plans[places[0]].base == {0: 0, 2: 1, 4: 2}
    assert plans[places[1]].base == {1: 0, 3: 1}
    assert plans[places[1]].shuffled == {0: 0}
    assert plans[places[0]].shuffled == {1: 0}
    assert not plan_controls(places, settings, has_base=False)[places[0]].base


def test_base_control_is_a_top_singular_vector_of_the_base_weights(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    found = pico.directions(base, tuned, k=1, base_controls=2)
    for layer in range(pico.N_LAYERS):
        for control in pico.at(found, layer, "base"):
            weights = pico.dense(base, f"{control.hookpoint.module}.weight")
            u, sigma, _ = np.linalg.svd(weights)
            assert abs(float(control.vector @ u[:, 0])) > 0.9999
            assert control.sigma == pytest.approx(sigma[0], rel=1e-5)
            assert control.energy == pytest.approx(sigma[0] ** 2 / (weights**2).sum(), rel=1e-4)


def test_base_controls_of_a_post_norm_go_through_the_gain(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path, "olmo2")
    found = pico.directions(base, tuned, k=1, base_controls=1)
    (control,) = pico.at(found, 0, "base")
    gain = pico.dense(base, "model.layers.0.post_attention_layernorm.weight")
    weights = gain[:, None] * pico.dense(base, f"{control.hookpoint.module}.weight")
    assert abs(float(control.vector @ np.linalg.svd(weights)[0][:, 0])) > 0.9999


def test_shuffled_control_has_the_size_of_the_difference_and_none_of_its_directions(
    tmp_path: Path,
) -> None:
    base = tmp_path / "base"
    pico.save("llama", base)
    name = "model.layers.0.mlp.down_proj.weight"
    strong = 3.0 * torch.outer(pico.unit(pico.D_MODEL, 1), pico.unit(pico.D_FF, 2))
    tuned = pico.edit(base, tmp_path / "tuned", pico.add(name, strong))
    found = pico.directions(base, tuned, k=1, shuffled_controls=1)
    (direction,), (control,) = pico.at(found, 0, "down_proj"), pico.at(found, 0, "shuffled")
    assert abs(float(direction.vector @ pico.unit(pico.D_MODEL, 1).numpy())) > 0.9999
    (spectrum,) = (s for s in found.spectra if s.hookpoint == direction.hookpoint)
    # Heavy tails of a rank-one matrix lift it a little above the floor, far below the real one.
    assert 0.8 * spectrum.shuffled_floor < control.sigma < 1.6 * spectrum.shuffled_floor
    assert control.sigma < 0.6 * direction.sigma
    again = pico.directions(base, tuned, k=1, shuffled_controls=1)
    assert (pico.at(again, 0, "shuffled")[0].vector == control.vector).all()
    other = pico.directions(base, tuned, k=1, shuffled_controls=1, seed=1)
    assert not (pico.at(other, 0, "shuffled")[0].vector == control.vector).all()


def test_adapter_has_controls_from_its_product_and_from_its_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    pico.save("llama", base)
    module = "model.layers.1.mlp.down_proj"
    adapter = pico.adapter(tmp_path / "adapter", {module: pico.factors(pico.D_FF, 3, 7)})
    found = pico.directions(base, adapter, k=3, base_controls=1, shuffled_controls=1)
    assert _control(found, "base") == _control(found, "shuffled") == [(1, module, 0)]


MATRICES = {
    "rank one": lambda g: torch.randn(120, 1, generator=g) @ torch.randn(1, 330, generator=g),
    "rank four": lambda g: torch.randn(120, 4, generator=g) @ torch.randn(4, 330, generator=g),
    "smooth": lambda g: torch.outer(torch.arange(120).div(7).sin(), torch.arange(330).div(9).sin()),
    "stripes": lambda g: ((torch.arange(120)[:, None] + torch.arange(330)) % 17 - 8).float(),
    "offset": lambda g: 1 + 0.1 * torch.randn(120, 330, generator=g),
    "noise": lambda g: torch.randn(120, 330, generator=g),
}


@pytest.mark.parametrize("name", MATRICES)
def test_shuffling_gives_the_spectrum_of_entries_in_random_order(name: str) -> None:
    matrix = MATRICES[name](torch.Generator().manual_seed(3)).contiguous()
    own, drawn = [], []
    for seed in range(6):
        mixed = shuffled(matrix.clone(), np.random.default_rng(seed))
        assert torch.equal(mixed.flatten().sort()[0], matrix.flatten().sort()[0])
        own.append(torch.linalg.svdvals(mixed)[:3])
        order = torch.randperm(matrix.numel(), generator=torch.Generator().manual_seed(seed))
        drawn.append(torch.linalg.svdvals(matrix.flatten()[order].reshape(matrix.shape))[:3])
    means = torch.stack(own).mean(0), torch.stack(drawn).mean(0)
    np.testing.assert_allclose(means[0], means[1], rtol=0.05)
