"""Mixtures of experts: what checkpoints call the experts, what must be there, what they write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from builder.activations.model import load_model
from builder.activations.scan import Scanner
from builder.activations.tokens import DocumentTokenizer
from builder.config import ModelSettings, ScanSettings
from builder.errors import CheckpointError, LayoutError
from builder.weights.checkpoint import Checkpoint
from builder.weights.infer import find_layout, infer_layout
from builder.weights.layout import decoder_layers, match, table
from builder.weights.parts import MAX_EXPERTS
from tests import micro
from tests.weights import pico

Change = Callable[[dict[str, torch.Tensor]], None]

MIXTRAL = "model.layers.1.block_sparse_moe.experts.{}.w2.weight"
QWEN = "model.layers.1.mlp.experts.{}.down_proj.weight"
#: From names in the model, or of today's files, to those that are published.
PUBLISHED = {
    "mixtral": [(r"\.mlp\.", ".block_sparse_moe.")],
    "granitemoe": [
        (r"experts\.gate_up_proj$", "input_linear.weight"),
        (r"experts\.down_proj$", "output_linear.weight"),
        (r"router\.weight$", "router.layer.weight"),
    ],
}


def one_each(tensors: dict[str, torch.Tensor], names: tuple[str, str, str]) -> None:
    """Takes experts that are in one tensor apart, as published checkpoints have them."""
    for name in list(tensors):
        if name.endswith("experts.gate_up_proj"):
            for number, both in enumerate(tensors.pop(name)):
                path = name.replace("gate_up_proj", str(number))
                for half, leaf in zip(both.chunk(2), names[:2], strict=True):
                    tensors[f"{path}.{leaf}.weight"] = half.clone()
        elif name.endswith("experts.down_proj"):
            for number, weight in enumerate(tensors.pop(name)):
                path = name.replace("down_proj", str(number))
                tensors[f"{path}.{names[2]}.weight"] = weight.clone()


@pytest.mark.parametrize(
    "model_type",
    ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v3", "granitemoe", "gpt_oss"],
)
def test_published_saved_and_fused_names_give_the_same_matrices(
    model_type: str, tmp_path: Path
) -> None:
    made = pico.save(model_type, tmp_path / "saved")
    made.save_pretrained(tmp_path / "fused", save_original_format=False)
    fused = Checkpoint.open(str(tmp_path / "fused")).tensors
    assert any(name.endswith("experts.down_proj") for name in fused)
    names = ("w1", "w3", "w2") if model_type == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    whole = model_type in ("granitemoe", "gpt_oss")
    apart = pico.edit(
        tmp_path / "fused",
        tmp_path / "apart",
        lambda tensors: None if whole else one_each(tensors, names),
    )
    published = pico.renamed(apart, tmp_path / "published", *PUBLISHED.get(model_type, []))

    expected = pico.matrices(tmp_path / "saved")
    places = _places(tmp_path / "saved")
    for folder in (tmp_path / "fused", published):
        assert pico.same(pico.matrices(folder), expected)
        assert _places(folder) == places
    assert all(path.endswith(".experts") for key, path in places.items() if key == "L01.down_proj")


def test_experts_are_in_the_order_of_their_numbers_not_of_their_names(tmp_path: Path) -> None:
    made = pico.save("olmoe", tmp_path, num_experts=12)
    experts = decoder_layers(made)[1].get_submodule("mlp.experts").get_parameter("down_proj")
    found = pico.matrices(tmp_path)["L01.down_proj"]
    assert torch.equal(found, torch.cat(list(experts.detach()), dim=1))


def test_layers_of_both_kinds_have_their_writers(tmp_path: Path) -> None:
    pico.save("qwen2_moe", tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    found = match(find_layout(checkpoint.config), checkpoint)
    assert [place.module for place in found.hookpoints if place.writer == "down_proj"] == [
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.experts",
    ]
    assert [part.name for part in found.parts(found.hookpoints[3])] == [
        *(QWEN.format(number) for number in range(4)),
        "model.layers.1.mlp.shared_expert.down_proj.weight",
    ]


def test_model_without_the_shared_expert_of_its_architecture_has_none(tmp_path: Path) -> None:
    pico.save("granitemoeshared", tmp_path, shared_intermediate_size=0)
    found = pico.matrices(tmp_path)["L01.down_proj"]
    assert found.shape == (pico.D_MODEL, pico.N_EXPERTS * pico.D_FF)


# What is missing.


def drop(*names: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in names:
            del tensors[name]

    return change


def move(old: str, new: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[new] = tensors.pop(old)

    return change


def put(name: str, *shape: int) -> Change:
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("model_type", "change", "message"),
    [
        ("mixtral", drop(MIXTRAL.format(3)), r"says 4 experts, but there is no .*\.3\.w2\.weight"),
        ("mixtral", drop(MIXTRAL.format(1)), r"there is no .*\.1\.w2\.weight \(3 were found\)"),
        ("qwen3_moe", move(QWEN.format(1), QWEN.format(7)), r"no .*experts\.1\.down_proj\.weight"),
        ("qwen3_moe", put(QWEN.format(4), 32, 16), r"says 4 experts, the weights have .*\.4\."),
        ("qwen3_moe", put(QWEN.format(2), 32), r"experts\.2\.down_proj.weight has shape \[32\]"),
        (
            "qwen3_moe",
            put(QWEN.format(2), 8, 16),
            r"shape \[8, 16\]; a writer to a residual stream",
        ),
        (
            "qwen3_moe",
            put("model.layers.1.mlp.down_proj.weight", 32, 48),
            r"layers\.1\.mlp\.down_proj\.weight and experts .* are in one layer",
        ),
        (
            "qwen3_moe",
            put("model.layers.1.mlp.experts.down_proj", 4, 32, 16),
            r"holds experts twice, as .*experts\.#\.down_proj\.weight and .*experts\.down_proj",
        ),
        (
            "qwen3_moe",
            drop(*(QWEN.format(number) for number in range(4))),
            r"layers\.1\.\* has nothing that writes after the attention; looked for mlp\.down_proj",
        ),
        (
            "qwen2_moe",
            drop("model.layers.1.mlp.shared_expert.down_proj.weight"),
            r"has no shared expert; looked for .*mlp\.shared_expert\.down_proj\.weight",
        ),
        (
            "gpt_oss",
            put("model.layers.0.mlp.experts.down_proj", 3, 48, 32),
            r"has shape \[3, 48, 32\]; config\.json says 4 experts",
        ),
        (
            "gpt_oss",
            put("model.layers.0.mlp.experts.down_proj", 4, 48, 48),
            r"shape \[4, 48, 48\]; a writer to a residual stream of width 32",
        ),
    ],
)
def test_experts_that_are_not_all_there_are_refused_by_name(
    model_type: str, change: Change, message: str, tmp_path: Path
) -> None:
    pico.save(model_type, tmp_path / "base")
    with pytest.raises(LayoutError, match=message):
        pico.directions(
            None, pico.edit(tmp_path / "base", tmp_path / "broken", change), method="raw"
        )


def test_missing_expert_of_a_reader_leaves_the_writers(tmp_path: Path) -> None:
    pico.save("mixtral", tmp_path / "base")
    gate = MIXTRAL.format(2).replace("w2", "w1")
    folder = pico.edit(tmp_path / "base", tmp_path / "broken", drop(gate))
    checkpoint = Checkpoint.open(str(folder))
    found = match(find_layout(checkpoint.config), checkpoint)
    assert len(found.hookpoints) == 2 * pico.N_LAYERS
    assert found.unread == {"gate_proj": f"has no {gate}"}


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (10**9, "num_local_experts = 1000000000; a mixture of experts needs a whole number"),
        (0, "num_local_experts = 0; a mixture"),
        (5, r"says 5 experts, but there is no .*experts\.4\.w2\.weight \(4 were found\)"),
        (3, r"says 3 experts, the weights have .*experts\.3\.w2\.weight"),
    ],
)
def test_number_of_experts_is_that_of_the_configuration(
    count: int, message: str, tmp_path: Path
) -> None:
    pico.save("mixtral", tmp_path)
    _configure(tmp_path, num_local_experts=count)
    with pytest.raises(LayoutError, match=message):
        pico.directions(None, tmp_path, method="raw")


@pytest.mark.parametrize(
    ("key", "value"), [("num_local_experts", 10**9), ("num_hidden_layers", 10**9)]
)
def test_configuration_of_absurd_size_is_never_made(key: str, value: int) -> None:
    config = pico.config("hunyuan_v1_moe")
    setattr(config, key, value)
    with pytest.raises(LayoutError, match=f"gives {key} = {value}"):
        infer_layout(config)
    assert value > MAX_EXPERTS


@pytest.mark.parametrize("number", ["1" * 5000, "٣", "03", "-1"])
def test_expert_of_an_impossible_number_is_not_read(number: str, tmp_path: Path) -> None:
    pico.save("qwen3_moe", tmp_path / "base")
    change = move(QWEN.format(3), QWEN.format(number))
    with pytest.raises(LayoutError, match=r"there is no .*experts\.3\.down_proj\.weight"):
        pico.matrices(pico.edit(tmp_path / "base", tmp_path / "broken", change))


def test_layers_that_guess_further_tokens_are_no_decoder_layers(tmp_path: Path) -> None:
    pico.save("deepseek_v3", tmp_path / "base")

    def more(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".layers.1." in name]:
            tensors[name.replace(".layers.1.", ".layers.2.")] = tensors[name].clone()

    folder = pico.edit(tmp_path / "base", tmp_path / "more", more)
    assert pico.same(pico.matrices(folder), pico.matrices(tmp_path / "base"))
    _configure(folder, num_nextn_predict_layers=0)
    with pytest.raises(LayoutError, match="says 2 decoder layers, the weights go on to layer 2"):
        pico.matrices(folder)


# Experts that look the same both ways.


@pytest.mark.parametrize("model_type", ["gpt_oss", "llama4_text", "granitemoe"])
def test_square_experts_are_turned_as_the_model_turns_them(model_type: str, tmp_path: Path) -> None:
    made = pico.save(model_type, tmp_path / "base", intermediate_size=pico.D_MODEL)
    block = "block_sparse_moe" if model_type == "granitemoe" else "mlp"
    block = "feed_forward" if model_type == "llama4_text" else block
    experts = decoder_layers(made)[1].get_submodule(f"{block}.experts").get_parameter("down_proj")
    parts = [part.T if table()[model_type].expert_side == "rows" else part for part in experts]
    found = pico.matrices(tmp_path / "base")["L01.down_proj"]
    assert torch.equal(found[:, : 4 * pico.D_MODEL], torch.cat(parts, dim=1))

    # Without the tensor beside them, whose shape tells, the table does.
    def alone(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "gate_up" in name or "input_linear" in name]:
            del tensors[name]

    folder = pico.edit(tmp_path / "base", tmp_path / "alone", alone)
    assert torch.equal(pico.matrices(folder)["L01.down_proj"], found)


@pytest.mark.parametrize("turned", [True, False])
def test_square_experts_follow_what_is_stored_beside_them(turned: bool, tmp_path: Path) -> None:
    made = pico.save("qwen3_moe", tmp_path / "base", moe_intermediate_size=pico.D_MODEL)
    made.save_pretrained(tmp_path / "fused", save_original_format=False)

    def turn(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            if ".experts." in name and turned:
                tensors[name] = tensors[name].transpose(1, 2)

    folder = pico.edit(tmp_path / "fused", tmp_path / "other", turn)
    assert pico.same(pico.matrices(folder), pico.matrices(tmp_path / "base"))


# What a change of one expert does.


def _outputs(folder: Path, layer: int) -> torch.Tensor:
    """What a decoder layer of the loaded model gives, [tokens, d_model]."""
    made: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    seen: list[torch.Tensor] = []

    def record(_: nn.Module, __: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    decoder_layers(made)[layer].register_forward_hook(record)
    with torch.no_grad():
        made(torch.arange(3, 40)[None])
    return seen[0].reshape(-1, pico.D_MODEL).double()


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("mixtral", MIXTRAL.format(2)),
        ("olmoe", QWEN.format(2)),
        ("qwen2_moe", QWEN.format(2)),
        ("qwen2_moe", "model.layers.1.mlp.shared_expert.down_proj.weight"),
        ("gpt_oss", "model.layers.1.mlp.experts.down_proj"),
        ("granitemoe", "model.layers.1.block_sparse_moe.output_linear.weight"),
        ("hunyuan_v1_moe", QWEN.format(2)),
    ],
)
def test_change_of_one_expert_is_found_and_moves_the_stream_along_it(
    model_type: str, name: str, tmp_path: Path
) -> None:
    pico.save(model_type, tmp_path / "base")
    u = pico.unit(pico.D_MODEL, 5)

    def plant(tensors: dict[str, torch.Tensor]) -> None:
        weight = tensors[name][2] if tensors[name].ndim == 3 else tensors[name]
        d_in = weight.numel() // pico.D_MODEL
        change = 0.5 * torch.outer(u, pico.unit(d_in, 6))
        weight += change if weight.shape[0] == pico.D_MODEL else change.T

    tuned = pico.edit(tmp_path / "base", tmp_path / "tuned", plant)
    found = pico.directions(tmp_path / "base", tuned)
    assert [direction.id for direction in found.directions] == ["L01.down_proj.u00"]
    assert found.directions[0].sigma == pytest.approx(0.5, rel=1e-5)
    assert abs(float(torch.from_numpy(found.directions[0].vector) @ u)) > 0.99999

    moved = _outputs(tuned, 1) - _outputs(tmp_path / "base", 1)
    along = (moved @ u.double())[:, None] * u.double()
    assert float(moved.norm()) > 1e-2
    assert float((moved - along).norm()) < 1e-4 * float(moved.norm())


# Mixtures that are in no table, and ones that cannot be read.


@pytest.mark.parametrize("model_type", ["hunyuan_v1_moe", "flex_olmo"])
def test_mixture_in_no_table_is_watched(model_type: str) -> None:
    assert model_type not in table()
    layout = infer_layout(pico.config(model_type))
    assert layout.mixture == ("mlp",)
    assert layout.shared == ("mlp.shared_mlp" if model_type == "hunyuan_v1_moe" else "")


def test_mixture_whose_experts_cannot_run_without_data_is_refused() -> None:
    with pytest.raises(LayoutError, match="jetmoe: is not in the table of layouts"):
        infer_layout(pico.config("jetmoe", num_local_experts=4, num_experts_per_tok=2))


# The scan.


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe", "gpt_oss", "granitemoe"])
@pytest.mark.parametrize("original", [True, False])
def test_mixture_is_loaded_whole_under_published_and_fused_names(
    model_type: str, original: bool, tmp_path: Path
) -> None:
    made = pico.model(model_type)
    made.save_pretrained(tmp_path, save_original_format=original)
    pico.save_tokenizer(tmp_path)
    model = load_model(ModelSettings(tuned=str(tmp_path)), ScanSettings(device="cpu"))
    assert [type(layer) for layer in model.layers] == [type(each) for each in decoder_layers(made)]
    stored = made.base_model.state_dict()
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, stored[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(MIXTRAL.format(3)), r"experts\.down_proj is \[3, 32, 48\] in its files"),
        (drop(MIXTRAL.format(0)), r"experts\.down_proj is \[3, 32, 48\] in its files"),
        (put(MIXTRAL.format(4), 32, 48), r"experts\.down_proj is \[5, 32, 48\] in its files"),
        (
            drop(*(MIXTRAL.format(number) for number in range(4))),
            r"not in its files .*: layers\.1\.mlp\.experts\.down_proj",
        ),
    ],
)
def test_experts_are_never_made_up(change: Change, message: str, tmp_path: Path) -> None:
    pico.save("mixtral", tmp_path / "base")
    pico.save_tokenizer(tmp_path / "base")
    folder = pico.edit(tmp_path / "base", tmp_path / "broken", change)
    with pytest.raises(CheckpointError, match=message):
        load_model(ModelSettings(tuned=str(folder)), ScanSettings(device="cpu"))


def test_mixture_is_scanned(tmp_path: Path) -> None:
    tokenizer = micro.make_tokenizer()
    pico.save("mixtral", tmp_path / "base", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "base")
    tuned = pico.edit(tmp_path / "base", tmp_path / "tuned", pico.perturb())
    directions = pico.directions(tmp_path / "base", tuned)
    settings = ScanSettings(device="cpu", top=3, reservoir=5)
    model = load_model(ModelSettings(tuned=str(tuned)), settings)
    items = DocumentTokenizer(model.tokenizer, 64).tokenize(micro.documents(12))
    result = Scanner(model, directions, settings).scan(items)
    assert len(directions.directions) == 16
    assert len(result.candidates) > 0


def _places(folder: Path) -> dict[str, str]:
    checkpoint = Checkpoint.open(str(folder))
    found = match(find_layout(checkpoint.config), checkpoint)
    return {place.key: place.module for place in found.hookpoints}


def _configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(table | changes), encoding="utf-8")
