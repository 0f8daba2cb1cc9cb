"""What directions and spectra carry besides vectors: gaps, floors, shapes, what feeds them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from builder.errors import ConfigError
from builder.records import Hookpoint
from builder.weights.delta import Rounding, WeightDelta
from builder.weights.features import head_shares, neuron_shares, spectrum_of
from builder.weights.layout import Part

from . import pico

DOWN_PROJ = "model.layers.1.mlp.down_proj.weight"


def _planted(tmp_path: Path, sigma: list[float], **settings: int) -> list[object]:
    """The directions of a change of one ``down_proj`` with these singular values."""
    base = tmp_path / "base"
    pico.save("llama", base)
    generator = torch.Generator().manual_seed(4)
    left = torch.linalg.qr(torch.randn(pico.D_MODEL, len(sigma), generator=generator))[0]
    right = torch.linalg.qr(torch.randn(pico.D_FF, len(sigma), generator=generator))[0]
    change = (left * torch.tensor(sigma)) @ right.T
    tuned = pico.edit(base, tmp_path / "tuned", pico.add(DOWN_PROJ, change))
    return list(pico.at(pico.directions(base, tuned, **settings), 1, "down_proj"))


def test_gap_is_the_distance_to_the_nearest_other_value(tmp_path: Path) -> None:
    found = _planted(tmp_path, [4.0, 3.0, 2.9, 1.0, 0.5], k=3)
    gaps = [direction.gap for direction in found]  # type: ignore[attr-defined]
    np.testing.assert_allclose(gaps, [0.25, 0.1 / 3, 0.1 / 2.9], rtol=1e-3)
    assert all(direction.group == () for direction in found)  # type: ignore[attr-defined]


def test_values_too_near_to_tell_apart_are_reported_as_a_group(tmp_path: Path) -> None:
    found = _planted(tmp_path, [4.0, 3.0, 2.9995, 2.999, 0.5], k=5)
    groups = [direction.group for direction in found]  # type: ignore[attr-defined]
    assert groups == [(), (1, 2, 3), (1, 2, 3), (1, 2, 3), ()]


def test_group_that_goes_on_behind_the_last_direction_says_so(tmp_path: Path) -> None:
    found = _planted(tmp_path, [4.0, 3.0, 2.9995, 0.5], k=2)
    groups = [direction.group for direction in found]  # type: ignore[attr-defined]
    assert groups == [(), (1, 2)]


def test_gap_of_the_last_of_a_low_rank_is_to_zero(tmp_path: Path) -> None:
    found = _planted(tmp_path, [4.0, 3.0], k=5)
    assert [round(direction.gap, 3) for direction in found] == [0.25, 0.333]  # type: ignore[attr-defined]


def _delta(matrix: torch.Tensor, writer: str = "down_proj") -> WeightDelta:
    rows, columns = matrix.shape
    return WeightDelta(Hookpoint(0, writer), (rows, columns), b"", dense=matrix)


def test_shuffled_floor_is_what_noise_of_equal_norm_reaches() -> None:
    noise = torch.randn(300, 900, generator=torch.Generator().manual_seed(1))
    sigma = torch.linalg.svdvals(noise.double())
    spectrum = spectrum_of(_delta(noise), sigma, float(noise.norm()), is_full=True)
    assert spectrum.shuffled_floor == pytest.approx(float(sigma[0]), rel=0.03)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounding_is_that_of_the_stored_type(dtype: torch.dtype) -> None:
    exact = 0.05 * torch.randn(200, 400, generator=torch.Generator().manual_seed(2)).double()
    stored = exact.to(dtype)
    true = float((stored.double() - exact).square().mean().sqrt())
    rounding = Rounding()
    rounding.add(stored[:100], None)
    rounding.add(stored[100:], None)
    assert rounding.root_mean_square == pytest.approx(true, rel=0.06)
    edge = math.sqrt(200) + math.sqrt(400)
    noise = torch.linalg.svdvals(stored.double() - exact)[0]
    assert rounding.root_mean_square * edge == pytest.approx(float(noise), rel=0.1)
    assert math.isnan(Rounding().root_mean_square)


def test_rounding_goes_through_the_gain() -> None:
    stored = torch.randn(64, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    plain, scaled = Rounding(), Rounding()
    plain.add(stored, None)
    scaled.add(stored, torch.full((64,), 3.0))
    assert scaled.root_mean_square == pytest.approx(3 * plain.root_mean_square)


def test_floors_stand_in_the_spectra_of_a_pair(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    found = pico.directions(base, tuned)
    for spectrum in found.spectra:
        assert 0 < spectrum.rounding_floor < 1e-5 < spectrum.shuffled_floor
        assert (spectrum.side, spectrum.space) == (
            "left",
            "heads" if spectrum.hookpoint.writer == "o_proj" else "neurons",
        )


def test_shape_of_a_full_spectrum_follows_its_formulas() -> None:
    matrix = torch.randn(20, 30, generator=torch.Generator().manual_seed(5))
    sigma = torch.linalg.svdvals(matrix.double())
    spectrum = spectrum_of(_delta(matrix), sigma, float(matrix.norm()), is_full=True)
    shares = (sigma / sigma.sum()).numpy()
    entropy = -(shares * np.log(shares)).sum()
    assert spectrum.entropy == pytest.approx(entropy)
    assert spectrum.effective_rank == pytest.approx(np.exp(entropy))
    assert spectrum.concentration == pytest.approx(shares[0])
    assert spectrum.stable_rank == pytest.approx(float((sigma**2).sum() / sigma[0] ** 2))
    cut = spectrum_of(_delta(matrix), sigma[:5], float(matrix.norm()), is_full=False)
    assert math.isnan(cut.entropy)
    assert math.isnan(cut.effective_rank)
    assert math.isnan(cut.concentration)


def test_entropy_of_a_low_rank_counts_what_is_there() -> None:
    sigma = torch.tensor([1.0, 1.0, 0.0, 0.0])
    spectrum = spectrum_of(_delta(torch.eye(4)), sigma, math.sqrt(2), is_full=True)
    assert spectrum.effective_rank == pytest.approx(2.0)


def test_direction_names_the_heads_that_feed_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    pico.save("llama", base)
    read = torch.zeros(32)
    read[8:16], read[24:32] = 3.0, 1.0  # heads of 8: the second and the fourth
    read /= read.norm()
    name = "model.layers.0.self_attn.o_proj.weight"
    change = torch.outer(pico.unit(pico.D_MODEL, 1), read)
    tuned = pico.edit(base, tmp_path / "tuned", pico.add(name, change))
    (direction, *_) = pico.at(pico.directions(base, tuned), 0, "o_proj")
    assert [head for head, _ in direction.reads[:2]] == ["head 1", "head 3"]
    np.testing.assert_allclose([share for _, share in direction.reads], [0.9, 0.1, 0.0], atol=1e-5)


def test_direction_names_the_neurons_that_feed_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    pico.save("llama", base)
    read = torch.zeros(pico.D_FF)
    read[[40, 3]] = torch.tensor([0.8, 0.6])
    change = torch.outer(pico.unit(pico.D_MODEL, 1), read)
    tuned = pico.edit(base, tmp_path / "tuned", pico.add(DOWN_PROJ, change))
    (direction, *_) = pico.at(pico.directions(base, tuned), 1, "down_proj")
    assert [name for name, _ in direction.reads[:2]] == ["neuron 40", "neuron 3"]
    np.testing.assert_allclose([s for _, s in direction.reads[:2]], [0.64, 0.36], atol=1e-5)


def test_heads_that_do_not_divide_the_input_are_not_named() -> None:
    assert head_shares(torch.ones(10, 2), 3) == [(), ()]
    assert head_shares(torch.ones(10, 2), 0) == [(), ()]


def test_neurons_of_a_mixture_are_named_with_their_expert() -> None:
    right = torch.zeros(12, 1)
    right[1], right[6], right[11] = 0.8, 0.5, 0.3
    parts = [Part("l.experts.0.down_proj.weight"), Part("l.experts.1.down_proj.weight"),
             Part("l.shared_expert.down_proj.weight")]  # fmt: skip
    (row,) = neuron_shares(right, parts, [4, 4, 4])
    assert [name for name, _ in row[:3]] == [
        "expert 0, neuron 1",
        "expert 1, neuron 2",
        "shared expert, neuron 3",
    ]
    fused = [Part("l.experts.down_proj", expert=expert) for expert in range(3)]
    assert neuron_shares(right, fused, [4, 4, 4])[0][1][0] == "expert 1, neuron 2"


def test_all_matrices_give_full_spectra_and_no_further_direction(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    plain, full = pico.directions(base, tuned), pico.directions(base, tuned, matrices="all")
    assert [d.id for d in plain.directions] == [d.id for d in full.directions]
    names = ["o_proj", "down_proj", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]
    assert [s.hookpoint.writer for s in full.spectra] == names * pico.N_LAYERS
    assert full.facts["unread_matrices"] == "none"
    for spectrum in full.spectra:
        name = f"{spectrum.hookpoint.module}.weight"
        delta = pico.dense(tuned, name) - pico.dense(base, name)
        sigma = np.linalg.svd(delta, compute_uv=False)
        assert spectrum.is_full
        assert spectrum.shape == delta.shape
        np.testing.assert_allclose(spectrum.sigmas, sigma, rtol=1e-5)
        assert spectrum.side == ("left" if spectrum.hookpoint.writer in names[:2] else "right")
    spaces = {s.hookpoint.writer: s.space for s in full.spectra}
    assert spaces == dict(
        zip(names, ["heads", "neurons", "heads", "keys", "values", "neurons", "neurons"],
            strict=True)
    )  # fmt: skip


def test_readers_that_are_not_known_are_named(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path, "gpt2")
    found = pico.directions(base, tuned, matrices="all")
    assert "gate_proj: " in found.facts["unread_matrices"]
    assert "up_proj" in {spectrum.hookpoint.writer for spectrum in found.spectra}


def test_adapter_of_readers_gives_their_spectra_from_its_factors(tmp_path: Path) -> None:
    base = tmp_path / "base"
    pico.save("llama", base)
    q_proj, down_proj = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"
    modules = {q_proj: pico.factors(pico.D_MODEL, 3, 1), down_proj: pico.factors(pico.D_FF, 3, 2)}
    adapter = pico.adapter(tmp_path / "adapter", modules)
    found = pico.directions(base, adapter, matrices="all")
    assert [s.hookpoint.writer for s in found.spectra] == ["down_proj", "q_proj"]
    for spectrum in found.spectra:
        lora_a, lora_b = modules[spectrum.hookpoint.module]
        sigma = torch.linalg.svdvals(16 / 3 * lora_b.double() @ lora_a.double())[:3]
        np.testing.assert_allclose(spectrum.sigmas, sigma, rtol=1e-5)
        assert spectrum.is_full
        assert math.isnan(spectrum.rounding_floor)


def test_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(ConfigError, match=r"directions\.device = .* cannot be used here"):
            pico.directions(base, tuned, device=device)
