"""Every architecture against weights put together by hand from the loaded model's modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from builder.errors import LayoutError
from builder.weights.checkpoint import Checkpoint
from builder.weights.infer import find_layout
from builder.weights.layout import Match, decoder_layers, match
from builder.weights.logit_lens import Head, find_head
from tests.weights import pico

#: Modules of the two writers in a layer, or of the mixture that has its own parts below.
WRITERS = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "olmo", "olmo2", "olmo3", "gemma2", "gemma3_text"),
        ("self_attn.o_proj", "mlp.down_proj"),
    ),
    "phi3": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "falcon": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "bloom": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "mpt": ("attn.out_proj", "ffn.down_proj"),
    **dict.fromkeys(
        ("mixtral", "phimoe", "minimax_m2", "olmoe", "flex_olmo", "qwen3_moe"),
        ("self_attn.o_proj", "mlp.down_proj"),
    ),
    "gpt_oss": ("self_attn.o_proj", "mlp.down_proj"),
    "qwen2_moe": ("self_attn.o_proj", "mlp.down_proj", "mlp.shared_expert.down_proj"),
    **dict.fromkeys(
        ("glm4_moe", "ernie4_5_moe", "deepseek_v2", "deepseek_v3"),
        ("self_attn.o_proj", "mlp.down_proj", "mlp.shared_experts.down_proj"),
    ),
    "hunyuan_v1_moe": ("self_attn.o_proj", "mlp.down_proj", "mlp.shared_mlp.down_proj"),
    "granitemoe": ("self_attn.o_proj", "block_sparse_moe.down_proj"),
    "granitemoeshared": (
        "self_attn.o_proj",
        "block_sparse_moe.down_proj",
        "shared_mlp.output_linear",
    ),
    "llama4_text": (
        "self_attn.o_proj",
        "feed_forward.down_proj",
        "feed_forward.shared_expert.down_proj",
    ),
}
#: Norms after the writers, and what is added to their weights.
GAINS = {
    **dict.fromkeys(("olmo2", "olmo3", "flex_olmo"), 0.0),
    **dict.fromkeys(("gemma2", "gemma3_text"), 1.0),
}
#: Their experts are stored [experts, d_in, d_out] in the loaded model.
TURNED = {"gpt_oss", "llama4_text"}
MIXTURES = [name for name in WRITERS if "moe" in name or name in TURNED] + [
    "mixtral",
    "minimax_m2",
    "flex_olmo",
    "deepseek_v2",
    "deepseek_v3",
]


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def by_hand(model_type: str, layer: nn.Module, writer: str) -> torch.Tensor:
    """diag(gain) W of a writer, [d_model, d_in], from the modules of a loaded model."""
    modules = dict(layer.named_modules())
    name = WRITERS[model_type][writer == "down_proj"]
    experts: Any = modules.get(f"{name.rpartition('.')[0]}.experts")
    if writer == "down_proj" and experts is not None:
        parts = [part.T if model_type in TURNED else part for part in experts.down_proj]
        parts += [modules[shared].weight for shared in WRITERS[model_type][2:]]
        weight = torch.cat(parts, dim=1)
    else:
        module: Any = modules[name]
        weight = module.weight.T if isinstance(module, Conv1D) else module.weight
    if model_type in GAINS:
        norm = "post_attention_layernorm" if writer == "o_proj" else "post_feedforward_layernorm"
        gain: Any = modules[norm].weight
        weight = (gain + GAINS[model_type])[:, None] * weight
    return weight.detach()


@pytest.mark.parametrize("model_type", sorted(WRITERS))
def test_directions_are_those_of_the_difference_of_the_loaded_models(
    model_type: str, tmp_path: Path
) -> None:
    folders = pico.pair(tmp_path, model_type)
    base, tuned = ([*decoder_layers(loaded(folder))] for folder in folders)
    found = pico.directions(*folders)
    assert len(found.spectra) == 2 * pico.N_LAYERS
    for spectrum in found.spectra:
        layer, writer = spectrum.hookpoint.layer, spectrum.hookpoint.writer
        delta = by_hand(model_type, tuned[layer], writer) - by_hand(model_type, base[layer], writer)
        u, sigma, _ = torch.linalg.svd(delta.double())
        kept = pico.at(found, layer, writer)
        assert [d.sigma for d in kept] == pytest.approx(sigma[:4].tolist(), rel=1e-5)
        for direction in kept:
            cosine = abs(float(torch.from_numpy(direction.vector).double() @ u[:, direction.rank]))
            assert cosine == pytest.approx(1.0, abs=1e-5), (direction.id, cosine)


@pytest.mark.parametrize("model_type", sorted(MIXTURES))
def test_experts_lie_side_by_side_in_the_order_of_their_numbers(
    model_type: str, tmp_path: Path
) -> None:
    made = pico.save(model_type, tmp_path)
    layer = decoder_layers(made)[-1]
    found = pico.matrices(tmp_path)[f"L{pico.N_LAYERS - 1:02d}.down_proj"]
    assert torch.equal(found, by_hand(model_type, layer, "down_proj"))


# Readers.


@pytest.fixture
def asked() -> Iterator[list[torch.Tensor]]:
    """What the next attention gets as q, k and v, each [heads * rows of a head] of one token."""
    seen: list[torch.Tensor] = []

    def spy(_: Any, q: Any, k: Any, v: Any, *__: Any, **___: Any) -> tuple[torch.Tensor, None]:
        seen.extend(each.transpose(1, 2).reshape(-1) for each in (q, k, v))
        return torch.zeros_like(q).transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("spy", spy)
    yield seen
    ALL_ATTENTION_FUNCTIONS._local_mapping.pop("spy", None)


def without_biases(made: Any) -> Any:
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return made


def read_by(made: Any, found: Match, place: int) -> torch.Tensor:
    """What the module of a reader takes in of one token, [d_model]."""
    seen: list[torch.Tensor] = []
    module = made.get_submodule(found.readers()[place].module)
    handle = module.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.no_grad():
        # One token at the first place, where rotary embeddings turn nothing.
        made(torch.tensor([[7]]))
    handle.remove()
    return seen[0].reshape(-1)


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {}),
        ("olmo", {}),
        ("gpt2", {}),
        ("gpt_bigcode", {"multi_query": True}),
        ("gpt_bigcode", {"multi_query": False}),
        ("gpt_neox", {}),
        ("phi3", {}),
        ("phi3", {"num_key_value_heads": 4}),
        ("mixtral", {}),
    ],
)
def test_queries_keys_and_values_are_what_the_attention_is_asked(
    model_type: str, changes: dict[str, Any], asked: list[torch.Tensor], tmp_path: Path
) -> None:
    made = without_biases(pico.model(model_type, **changes))
    made.save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    found = match(find_layout(checkpoint.config), checkpoint)
    made.set_attn_implementation("spy")
    given = read_by(made, found, 0)
    matrices = pico.matrices(tmp_path)
    for name, expected in zip("qkv", asked[:3], strict=True):
        assert torch.allclose(matrices[f"L00.{name}_proj"] @ given, expected, atol=1e-5), name


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("falcon", {"multi_query": True}),
        ("falcon", {"multi_query": False}),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
        ("bloom", {}),
        ("mpt", {}),
    ],
)
def test_fused_projection_comes_apart_as_its_own_module_takes_it_apart(
    model_type: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    made = without_biases(pico.model(model_type, **changes))
    made.save_pretrained(tmp_path)
    matrices = pico.matrices(tmp_path)
    layer: Any = decoder_layers(made)[0]
    x = torch.randn(1, 1, pico.D_MODEL, generator=torch.Generator().manual_seed(0))
    if model_type == "mpt":
        parts = layer.attn.Wqkv(x).chunk(3, dim=2)
    elif model_type == "bloom":
        parts = layer.self_attention._reshape(layer.self_attention.query_key_value(x))
    else:
        parts = layer.self_attention._split_heads(layer.self_attention.query_key_value(x))
    repeats = 2 if "num_kv_heads" in changes else 1
    for name, part in zip("qkv", parts, strict=True):
        expected = part.detach().reshape(-1, 8)
        # Falcon repeats each head of k and v for all its heads of q.
        expected = expected[::repeats] if name != "q" else expected
        assert torch.allclose(
            matrices[f"L00.{name}_proj"] @ x.reshape(-1), expected.reshape(-1), atol=1e-5
        ), name


@pytest.mark.parametrize("model_type", ["llama", "phi3", "glm4", "qwen3_moe", "deepseek_v3"])
def test_gate_and_up_give_what_the_mlp_gives(model_type: str, tmp_path: Path) -> None:
    layer: Any = decoder_layers(pico.save(model_type, tmp_path))[0]
    gate, up = (pico.matrices(tmp_path)[f"L00.{name}_proj"] for name in ("gate", "up"))
    x = torch.randn(pico.D_MODEL, generator=torch.Generator().manual_seed(0))
    expected = layer.mlp(x[None]).detach()[0]
    hidden = torch.nn.functional.silu(gate @ x) * (up @ x)
    assert torch.allclose(layer.mlp.down_proj.weight @ hidden, expected, atol=1e-4)


@pytest.mark.parametrize(
    "model_type",
    # Turned ones are called in another way, and a gain stands after flex_olmo's.
    sorted(set(MIXTURES) - TURNED - {"flex_olmo", "granitemoeshared", "hunyuan_v1_moe"}),
)
def test_expert_of_readers_and_writer_gives_what_the_models_expert_gives(
    model_type: str, tmp_path: Path
) -> None:
    layer: Any = decoder_layers(pico.save(model_type, tmp_path))[-1]
    block = getattr(layer, "block_sparse_moe", None) or layer.mlp
    last = f"L{pico.N_LAYERS - 1:02d}"
    matrices = pico.matrices(tmp_path)
    gate, up, down = (matrices[f"{last}.{name}_proj"] for name in ("gate", "up", "down"))
    x = torch.randn(pico.D_MODEL, generator=torch.Generator().manual_seed(0))
    size = block.experts.down_proj.shape[2]
    for expert in range(pico.N_EXPERTS):
        span = slice(expert * size, (expert + 1) * size)
        chosen, weight = torch.tensor([[expert]]), torch.ones(1, 1)
        expected = block.experts(x[None], chosen, weight).detach()[0]
        hidden = block.experts.act_fn(gate[span] @ x) * (up[span] @ x)
        assert torch.allclose(down[:, span] @ hidden, expected, atol=1e-4), expert
    for shared in ("shared_expert", "shared_experts"):
        if hasattr(block, shared):
            span = slice(pico.N_EXPERTS * size, None)
            hidden = torch.nn.functional.silu(gate[span] @ x) * (up[span] @ x)
            expected = getattr(block, shared)(x[None]).detach()[0]
            assert torch.allclose(down[:, span] @ hidden, expected, atol=1e-4)


def test_turned_experts_are_read_as_the_model_reads_them(tmp_path: Path) -> None:
    layer: Any = decoder_layers(pico.save("llama4_text", tmp_path))[1]
    matrices = pico.matrices(tmp_path)
    gate, up, down = (matrices[f"L01.{name}_proj"] for name in ("gate", "up", "down"))
    x = torch.randn(pico.D_MODEL, generator=torch.Generator().manual_seed(0))
    expected = layer.feed_forward.experts(x.repeat(pico.N_EXPERTS, 1)).detach()
    for expert in range(pico.N_EXPERTS):
        span = slice(expert * pico.D_FF, (expert + 1) * pico.D_FF)
        hidden = torch.nn.functional.silu(gate[span] @ x) * (up[span] @ x)
        assert torch.allclose(down[:, span] @ hidden, expected[expert], atol=1e-4)


def test_readers_come_by_layer_then_in_their_order(tmp_path: Path) -> None:
    pico.save("phi3", tmp_path)
    found = _match(tmp_path)
    assert [place.key for place in found.readers()] == [
        f"L{layer:02d}.{name}_proj" for layer in (0, 1) for name in ("q", "k", "v", "gate", "up")
    ]
    assert found.readers()[3].module == "model.layers.0.mlp.gate_up_proj"
    assert not found.unread
    assert not found.gain(found.readers()[0])


@pytest.mark.parametrize(
    ("model_type", "reader", "why"),
    [
        ("gpt2", "gate_proj", "its MLP has no gate"),
        ("gpt_oss", "up_proj", "the others' by turns"),
        ("deepseek_v3", "k_proj", r"has no model\.layers\.0\.self_attn\.k_proj\.weight"),
        ("opt", "up_proj", "where the MLP reads is not known of watched in a forward pass"),
    ],
)
def test_reader_that_is_not_known_is_none_and_says_why(
    model_type: str, reader: str, why: str, tmp_path: Path
) -> None:
    pico.save(model_type, tmp_path)
    found = _match(tmp_path)
    assert len(found.hookpoints) == 2 * pico.N_LAYERS
    assert reader not in {place.writer for place in found.readers()}
    with pytest.raises(LayoutError, match=why):
        raise LayoutError(found.unread[reader])


def test_fused_rows_that_fit_no_heads_are_not_read(tmp_path: Path) -> None:
    pico.save("phi3", tmp_path / "base")
    name = "model.layers.1.self_attn.qkv_proj.weight"

    def cut(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name][:-4].clone()

    found = _match(pico.edit(tmp_path / "base", tmp_path / "cut", cut))
    assert {place.writer for place in found.readers()} == {"gate_proj", "up_proj"}
    assert f"{name} has 60 rows, which are not q, k and v of 4 heads" in found.unread["q_proj"]


# Files and embeddings.


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "mixtral", "granitemoe"])
def test_shards_with_and_without_an_index_hold_the_same_matrices(
    model_type: str, tmp_path: Path
) -> None:
    made = pico.save(model_type, tmp_path / "single")
    made.save_pretrained(tmp_path / "sharded", max_shard_size="30KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    single = pico.matrices(tmp_path / "single")
    assert pico.same(pico.matrices(tmp_path / "sharded"), single)
    (tmp_path / "sharded/model.safetensors.index.json").unlink()
    assert pico.same(pico.matrices(tmp_path / "sharded"), single)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox", "mixtral", "qwen2_moe"])
@pytest.mark.parametrize("tied", [True, False])
def test_unembedding_is_found_tied_and_untied(model_type: str, tied: bool, tmp_path: Path) -> None:
    made = pico.save(model_type, tmp_path, tie_word_embeddings=tied)
    checkpoint = Checkpoint.open(str(tmp_path))
    head = find_head(checkpoint, _match(tmp_path))
    assert isinstance(head, Head)
    stored = checkpoint.tensor(head.name)
    np.testing.assert_array_equal(stored, made.get_output_embeddings().weight.detach())


def _match(folder: Path) -> Match:
    checkpoint = Checkpoint.open(str(folder))
    return match(find_layout(checkpoint.config), checkpoint)
