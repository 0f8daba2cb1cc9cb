"""Two tunes of one base, each a whole model or an adapter: against dense differences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file

from builder.config import DirectionSettings, ModelSettings, ScanSettings
from builder.errors import CheckpointError, ConfigError
from builder.records import DirectionSet
from builder.weights.directions import compute_directions
from builder.weights.open_source import open_source
from tests.weights import pico

Modules: TypeAlias = dict[str, tuple[torch.Tensor, torch.Tensor]]

O_PROJ = "model.layers.{}.self_attn.o_proj"
DOWN_PROJ = "model.layers.{}.mlp.down_proj"
SETTINGS = DirectionSettings(k=8, logit_lens_tokens=0, **pico.NO_CONTROLS)


def _factors(rank: int, seed: int, layers: tuple[int, ...] = (0, 1)) -> Modules:
    return {
        name.format(layer): pico.factors(d_in, rank, seed + 10 * layer + place)
        for layer in layers
        for place, (name, d_in) in enumerate(((O_PROJ, pico.D_MODEL), (DOWN_PROJ, pico.D_FF)))
    }


def _matrix(folder: Path, module: str) -> torch.Tensor:
    return load_file(folder / "model.safetensors")[f"{module}.weight"].double()


def _product(modules: Mapping[str, tuple[torch.Tensor, torch.Tensor]], module: str) -> torch.Tensor:
    lora_a, lora_b = modules[module]
    return lora_b.double() @ lora_a.double()


def _found(tuned: Path, base: Path, **more: Any) -> DirectionSet:
    return compute_directions(ModelSettings(tuned=str(tuned), base=str(base), **more), SETTINGS)


def _assert_is(found: DirectionSet, layer: int, writer: str, delta: torch.Tensor) -> None:
    u, sigma, _ = torch.linalg.svd(delta)
    directions = pico.at(found, layer, writer)
    assert len(directions) == min(SETTINGS.k, int((sigma > 1e-5 * sigma[0]).sum()))
    for one in directions:
        assert one.sigma == pytest.approx(float(sigma[one.rank]), rel=1e-5)
        assert abs(np.dot(one.vector, u[:, one.rank].numpy())) > 1 - 1e-6
        assert one.energy == pytest.approx(float((sigma[one.rank] / sigma.norm()) ** 2), rel=1e-5)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    pico.save("llama", tmp_path / "base")
    pico.save_tokenizer(tmp_path / "base")
    return tmp_path / "base"


def _adapter(folder: Path, modules: Modules, base: str = "../base", **changes: Any) -> Path:
    rank = next(iter(modules.values()))[0].shape[0]
    values = {"lora_alpha": rank, "base_model_name_or_path": base}
    return pico.adapter(folder, modules, **(values | changes))


@pytest.mark.parametrize("rank", [3, 40])
def test_two_adapters_differ_by_the_difference_of_their_products(
    base: Path, tmp_path: Path, rank: int
) -> None:
    one, two = _factors(rank, 0), _factors(2, 100)
    found = _found(_adapter(tmp_path / "one", one), _adapter(tmp_path / "two", two))
    for layer in range(pico.N_LAYERS):
        for writer, name in (("o_proj", O_PROJ), ("down_proj", DOWN_PROJ)):
            module = name.format(layer)
            _assert_is(found, layer, writer, _product(one, module) - _product(two, module))
    assert found.base is not None
    assert (found.base.kind, found.tuned.kind) == ("adapter", "adapter")
    assert found.facts["compared"] == "two tunes of base"
    assert found.facts["adapter_base"] == "base, named by the adapter"
    assert found.facts["base_found"] == "given"
    assert str(tmp_path) not in json.dumps(found.facts)


def test_two_adapters_are_never_multiplied_out(base: Path, tmp_path: Path) -> None:
    one, two = (
        _adapter(tmp_path / "one", _factors(3, 0)),
        _adapter(tmp_path / "two", _factors(2, 9)),
    )
    source = open_source(ModelSettings(tuned=str(one), base=str(two)), SETTINGS)
    for hookpoint in source.hookpoints:
        delta = source.delta(hookpoint)
        assert delta.dense is None
        assert [left.shape[1] for left, _ in delta.factors] == [5]


def test_module_of_only_one_of_two_adapters_counts_as_zero_in_the_other(
    base: Path, tmp_path: Path
) -> None:
    one, two = _factors(3, 0, layers=(0,)), _factors(2, 100, layers=(1,))
    found = _found(_adapter(tmp_path / "one", one), _adapter(tmp_path / "two", two))
    _assert_is(found, 0, "o_proj", _product(one, O_PROJ.format(0)))
    _assert_is(found, 1, "down_proj", -_product(two, DOWN_PROJ.format(1)))


def test_modules_that_two_adapters_share_differ_by_nothing(base: Path, tmp_path: Path) -> None:
    one = _factors(3, 0)
    two = one | {O_PROJ.format(1): pico.factors(pico.D_MODEL, 3, 77)}
    found = _found(_adapter(tmp_path / "one", one), _adapter(tmp_path / "two", two))
    assert found.facts["zero_matrices"] == "L00.o_proj, L00.down_proj, L01.down_proj"
    assert {direction.hookpoint.key for direction in found.directions} == {"L01.o_proj"}
    with pytest.raises(CheckpointError, match="zero"):
        _found(tmp_path / "one", _adapter(tmp_path / "same", one))
    with pytest.raises(ConfigError, match=r"both model\.base and model\.tuned"):
        _found(tmp_path / "one", tmp_path / "one")


def test_two_adapters_of_different_bases_are_refused_by_name(base: Path, tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "other", seed=5)
    one = _adapter(tmp_path / "one", _factors(3, 0))
    two = _adapter(tmp_path / "two", _factors(3, 1), base="../other")
    with pytest.raises(ConfigError, match=r"one is an adapter of .*base, .*two one of .*other"):
        _found(one, two)
    found = _found(one, two, adapter_base=str(base))
    assert found.facts["adapter_base"] == "base, given"


def test_whole_model_and_adapter_differ_by_both(base: Path, tmp_path: Path) -> None:
    tuned = pico.edit(base, tmp_path / "tuned", pico.perturb())
    factors = _factors(3, 0, layers=(0,))
    adapter = _adapter(tmp_path / "adapter", factors)
    against = _found(tuned, adapter)
    for writer, name in (("o_proj", O_PROJ), ("down_proj", DOWN_PROJ)):
        whole = [_matrix(tuned, name.format(n)) - _matrix(base, name.format(n)) for n in (0, 1)]
        _assert_is(against, 0, writer, whole[0] - _product(factors, name.format(0)))
        _assert_is(against, 1, writer, whole[1])
    turned = _found(adapter, tuned, adapter_base=str(base))
    for one, other in zip(against.directions, turned.directions, strict=True):
        assert one.sigma == pytest.approx(other.sigma, rel=1e-5)
        assert abs(np.dot(one.vector, other.vector)) > 1 - 1e-5
        assert one.content_hash != other.content_hash


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("model_type", ["gemma2", "gpt2"])
def test_gains_and_orientation_hold_for_two_tunes(model_type: str, tmp_path: Path) -> None:
    made = pico.save(model_type, tmp_path / "base", dtype=torch.float32)
    tuned = pico.edit(tmp_path / "base", tmp_path / "tuned", pico.perturb())
    names = ["c_proj"] if model_type == "gpt2" else ["o_proj", "down_proj"]
    config = peft.LoraConfig(r=3, target_modules=names, fan_in_fan_out=model_type == "gpt2")
    wrapped: Any = peft.get_peft_model(made, config)
    pico.fill_factors(wrapped, 3)
    wrapped.save_pretrained(tmp_path / "adapter")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    models = ModelSettings(
        tuned=str(tuned), base=str(tmp_path / "adapter"), adapter_base=str(tmp_path / "base")
    )
    found = compute_directions(models, SETTINGS)
    dense = compute_directions(
        models.model_copy(update={"base": str(tmp_path / "merged")}), SETTINGS
    )
    for one, other in zip(found.directions, dense.directions, strict=True):
        assert one.sigma == pytest.approx(other.sigma, rel=1e-4)
        assert abs(np.dot(one.vector, other.vector)) > 1 - 1e-4


def test_base_controls_of_two_tunes_are_those_of_the_tune_compared_with(
    base: Path, tmp_path: Path
) -> None:
    factors = _factors(3, 0)
    two = _adapter(tmp_path / "two", factors)
    settings = ModelSettings(tuned=str(_adapter(tmp_path / "one", _factors(2, 9))), base=str(two))
    source = open_source(settings, SETTINGS)
    found = source.base_weights(source.hookpoints[0])
    assert found is not None
    weights = found.dense
    assert weights is not None
    module = O_PROJ.format(0)
    torch.testing.assert_close(
        weights.double(), _matrix(base, module) + _product(factors, module), rtol=1e-6, atol=1e-5
    )


def test_a_model_may_be_compared_with_an_adapter_on_itself(base: Path, tmp_path: Path) -> None:
    factors = _factors(3, 0)
    found = _found(base, _adapter(tmp_path / "adapter", factors))
    _assert_is(found, 0, "o_proj", -_product(factors, O_PROJ.format(0)))
    assert found.tuned.kind == "checkpoint"


@pytest.mark.parametrize("explicit", [False, True])
def test_scan_runs_the_adapter_on_its_own_base(base: Path, tmp_path: Path, explicit: bool) -> None:
    from builder.activations.model import check_model, load_model

    factors = _factors(3, 0)
    one = _adapter(tmp_path / "one", factors)
    if explicit:  # a whole model to compare with, and another that the adapter goes on
        other = pico.edit(base, tmp_path / "other", pico.perturb())
        models = ModelSettings(tuned=str(one), base=str(other), adapter_base=str(base))
    else:
        two = _adapter(tmp_path / "two", _factors(2, 100))
        models = ModelSettings(tuned=str(one), base=str(two))
    settings = ScanSettings(device="cpu", dtype="float32")
    check_model(models, settings)
    weights = dict(load_model(models, settings).backbone.named_parameters())
    module = DOWN_PROJ.format(1)
    torch.testing.assert_close(
        weights[f"{module.removeprefix('model.')}.weight"].double(),
        _matrix(base, module) + _product(factors, module),
        rtol=1e-5,
        atol=1e-5,
    )


def test_tune_that_writes_nothing_is_refused_unless_the_other_does(
    base: Path, tmp_path: Path
) -> None:
    q_proj = {"model.layers.0.self_attn.q_proj": pico.factors(pico.D_MODEL, 2, 0)}
    one = _adapter(tmp_path / "one", q_proj)
    two = _adapter(tmp_path / "two", q_proj, lora_alpha=8)
    with pytest.raises(CheckpointError, match=r"targets q_proj, none .*; .*two: targets q_proj"):
        _found(one, two)
    assert _found(one, _adapter(tmp_path / "three", _factors(2, 0))).directions


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe", "deepseek_v3"])
def test_adapter_of_some_experts_changes_their_columns_only(
    model_type: str, tmp_path: Path
) -> None:
    pico.save(model_type, tmp_path / "base", dtype=torch.float32)
    layer = pico.N_LAYERS - 1  # the first may have a plain MLP
    names = [
        name.removesuffix(".weight")
        for name in load_file(tmp_path / "base" / "model.safetensors")
        if f"layers.{layer}." in name
        and "expert" in name
        and name.split(".")[-2] in ("w2", "down_proj")
    ]
    chosen = [name for name in names if ".experts.1." in name or "shared" in name]
    assert chosen
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    factors = {
        name: pico.factors(tensors[f"{name}.weight"].shape[1], 2, seed)
        for seed, name in enumerate(chosen)
    }

    def merge(tensors: dict[str, torch.Tensor]) -> None:
        for name in chosen:
            tensors[f"{name}.weight"] += _product(factors, name).float()

    merged = pico.edit(tmp_path / "base", tmp_path / "merged", merge)
    adapter = _adapter(tmp_path / "adapter", factors)
    found, dense = _found(adapter, tmp_path / "base"), _found(merged, tmp_path / "base")
    assert {direction.hookpoint.key for direction in found.directions} == {
        f"L{layer:02d}.down_proj"
    }
    other = pico.at(dense, layer, "down_proj")
    for one in found.directions:
        assert one.sigma == pytest.approx(other[one.rank].sigma, rel=1e-4)
        assert abs(np.dot(one.vector, other[one.rank].vector)) > 1 - 1e-4
    assert len(found.directions) == 2 * len(chosen)


@pytest.mark.parametrize(
    ("model_type", "every", "applied"),
    [("mixtral", True, True), ("mixtral", False, False), ("qwen2_moe", True, False)],
)
@pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning")
def test_scan_runs_an_adapter_of_experts_whole_or_not_at_all(
    model_type: str, every: bool, applied: bool, tmp_path: Path
) -> None:
    from builder.activations.model import load_model

    base = tmp_path / "base"
    pico.save(model_type, base, dtype=torch.float32)
    pico.save_tokenizer(base)
    block, leaf = ("block_sparse_moe", "w2") if model_type == "mixtral" else ("mlp", "down_proj")
    tensors = load_file(base / "model.safetensors")
    names = [
        f"model.layers.1.{block}.experts.{expert}.{leaf}"
        for expert in range(pico.N_EXPERTS if every else 1)
    ]
    factors = {
        name: pico.factors(tensors[f"{name}.weight"].shape[1], 2, seed)
        for seed, name in enumerate(names)
    }
    models = ModelSettings(tuned=str(_adapter(tmp_path / "lora", factors)))
    settings = ScanSettings(device="cpu", dtype="float32")
    if not applied:
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            load_model(models, settings)
        return
    weights = dict(load_model(models, settings).backbone.named_parameters())
    for expert, name in enumerate(names):
        torch.testing.assert_close(
            weights["layers.1.mlp.experts.down_proj"][expert].double(),
            tensors[f"{name}.weight"].double() + _product(factors, name),
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "phi3"])
def test_readers_of_an_adapter_give_what_the_merged_model_gives(
    model_type: str, tmp_path: Path
) -> None:
    pico.save(model_type, tmp_path / "base", dtype=torch.float32)
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    leaves = ("o_proj", "q_proj", "up_proj", "w1", "qkv_proj")
    generator = torch.Generator().manual_seed(1)
    factors = {
        name.removesuffix(".weight"): (
            torch.randn(2, tensor.shape[1], generator=generator),
            torch.randn(tensor.shape[0], 2, generator=generator),
        )
        for name, tensor in tensors.items()
        if "layers.1" in name and name.split(".")[-2] in leaves and ".experts.2." not in name
    }

    def merge(tensors: dict[str, torch.Tensor]) -> None:
        for name in factors:
            tensors[f"{name}.weight"] += _product(factors, name).float()

    merged = pico.edit(tmp_path / "base", tmp_path / "merged", merge)
    adapter = _adapter(tmp_path / "adapter", factors)
    every = SETTINGS.model_copy(update={"matrices": "all"})
    found, dense = (
        compute_directions(ModelSettings(tuned=str(t), base=str(tmp_path / "base")), every)
        for t in (adapter, merged)
    )
    by_place = {spectrum.hookpoint.key: spectrum for spectrum in dense.spectra}
    readers = [s for s in found.spectra if s.hookpoint.writer not in ("o_proj", "down_proj")]
    assert readers
    for spectrum in readers:
        other = by_place[spectrum.hookpoint.key]
        assert spectrum.shape == other.shape
        np.testing.assert_allclose(
            spectrum.sigmas, other.sigmas[: len(spectrum.sigmas)], rtol=1e-3, atol=1e-4
        )
