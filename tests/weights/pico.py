"""Pico models of real architectures: seeded random weights, built in milliseconds, and saved."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from builder.config import DirectionSettings, ModelSettings
from builder.records import Direction, DirectionSet
from builder.weights.checkpoint import Checkpoint
from builder.weights.delta import whole
from builder.weights.directions import compute_directions
from builder.weights.infer import find_layout
from builder.weights.layout import Layout, match, table

D_MODEL, D_FF, N_LAYERS, VOCABULARY = 32, 48, 2, 96

#: Architectures of the table that are models by themselves, not only the language part of one.
WHOLE = sorted(name for name in table() if not name.endswith(("_vl_text", "_vl_moe_text")))

NO_CONTROLS = {"random_controls": 0, "base_controls": 0, "shuffled_controls": 0}

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": D_FF,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": D_MODEL,
    "n_layer": N_LAYERS,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SPECIAL: dict[str, dict[str, Any]] = {
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gptj": _GPT | {"rotary_dim": 4},
    "gpt_neo": {
        "vocab_size": VOCABULARY,
        "hidden_size": D_MODEL,
        "num_layers": N_LAYERS,
        "num_heads": 4,
        "attention_types": [[["global"], N_LAYERS]],
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": D_MODEL, "n_layer": N_LAYERS, "n_head": 4},
    "mpt": {
        "vocab_size": VOCABULARY,
        "d_model": D_MODEL,
        "n_layers": N_LAYERS,
        "n_heads": 4,
        "max_seq_len": 64,
    },
    "falcon": {
        "vocab_size": VOCABULARY,
        "hidden_size": D_MODEL,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": D_MODEL,
        "word_embed_proj_dim": D_MODEL,
        "ffn_dim": D_FF,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
}
N_EXPERTS = 4
_MIXTURE: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ROUTED = _MIXTURE | {"n_routed_experts": N_EXPERTS, "n_group": 1, "topk_group": 1}
#: Attention through narrow layers, as DeepSeek has it.
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "head_dim": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
#: Caps and scales of the logits are off, so that logits can be compared with the lens. Where an
#: architecture can have both kinds of layers, the first has a plain MLP, the second is a mixture.
_EXTRA: dict[str, dict[str, Any]] = {
    "gemma2": {"final_logit_softcapping": None},
    "granite": {"logits_scaling": 1.0},
    "granitemoe": _MIXTURE | {"num_local_experts": N_EXPERTS},
    "granitemoeshared": _MIXTURE | {"num_local_experts": N_EXPERTS, "shared_intermediate_size": 24},
    "cohere": {"logit_scale": 1.0},
    "qwen2_vl_text": {"rope_parameters": _ROPE},
    "qwen2_5_vl_text": {"rope_parameters": _ROPE},
    "qwen3_vl_text": {"rope_parameters": _ROPE},
    "mixtral": _MIXTURE | {"num_local_experts": N_EXPERTS},
    "minimax_m2": _MIXTURE | {"num_local_experts": N_EXPERTS},
    "phimoe": _MIXTURE | {"num_local_experts": N_EXPERTS},
    "olmoe": _MIXTURE | {"num_experts": N_EXPERTS},
    "flex_olmo": _MIXTURE | {"num_experts": N_EXPERTS},
    "hunyuan_v1_moe": {"num_experts": N_EXPERTS, "moe_topk": 2},
    "qwen2_moe": _MIXTURE
    | {"num_experts": N_EXPERTS, "shared_expert_intermediate_size": 24, "decoder_sparse_step": 2},
    "qwen3_moe": _MIXTURE | {"num_experts": N_EXPERTS, "decoder_sparse_step": 2},
    "qwen3_vl_moe_text": _MIXTURE
    | {"num_experts": N_EXPERTS, "decoder_sparse_step": 2, "rope_parameters": _ROPE},
    "glm4_moe": _ROUTED | {"first_k_dense_replace": 1},
    "ernie4_5_moe": _MIXTURE | {"moe_num_experts": N_EXPERTS, "moe_k": 2},
    "deepseek_v2": _ROUTED | _LATENT | {"first_k_dense_replace": 1},
    "deepseek_v3": _ROUTED | _LATENT | {"first_k_dense_replace": 1},
    "gpt_oss": _MIXTURE | {"num_local_experts": N_EXPERTS},
    "llama4_text": {
        "num_local_experts": N_EXPERTS,
        "num_experts_per_tok": 1,
        "moe_layers": [1],
        "intermediate_size_mlp": 40,
    },
}


def config(model_type: str, **changes: Any) -> Any:
    """A transformers configuration of pico size."""
    values = _SPECIAL.get(model_type, _COMMON) | _EXTRA.get(model_type, {}) | changes
    return CONFIG_MAPPING[model_type](**values)


def model(model_type: str, seed: int = 0, **changes: Any) -> Any:
    """A causal language model with random weights, norms and biases included, float32."""
    made = transformers.AutoModelForCausalLM.from_config(
        config(model_type, **changes), attn_implementation="eager"
    )
    return randomized(made, seed)


def randomized(made: Any, seed: int = 0) -> Any:
    """The model with random weights, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1.0 + 0.4 * noise if is_gain else 0.3 * noise)
    return made.eval()


def save(model_type: str, folder: Path, seed: int = 0, **changes: Any) -> Any:
    """Saves a pico model to ``folder`` and returns it."""
    made = model(model_type, seed, **changes)
    made.save_pretrained(folder)
    return made


def edit(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a saved model with its tensors changed in place by ``change``."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )
    return target


def add(name: str, matrix: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    """An edit that adds to one tensor."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = (tensors[name].float() + matrix).to(tensors[name].dtype)

    return change


def perturb(seed: int = 1, scale: float = 0.1) -> Callable[[dict[str, torch.Tensor]], None]:
    """An edit that adds noise to every tensor: a fine-tune that changed everything."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name in sorted(tensors):
            noise = torch.randn(tensors[name].shape, generator=generator)
            tensors[name] = (tensors[name].float() + scale * noise).to(tensors[name].dtype)

    return change


def pair(folder: Path, model_type: str = "llama", **changes: Any) -> tuple[Path, Path]:
    """A saved base and a tuned copy in which every tensor changed."""
    save(model_type, folder / "base", **changes)
    return folder / "base", edit(folder / "base", folder / "tuned", perturb())


def renamed(source: Path, target: Path, *rules: tuple[str, str]) -> Path:
    """A copy of a saved model with its tensors renamed by the first rule that matches each name."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            for pattern, replacement in rules:
                new, hits = re.subn(pattern, replacement, name)
                if hits:
                    tensors[new] = tensors.pop(name)
                    break

    return edit(source, target, change)


def matrices(folder: Path) -> dict[str, torch.Tensor]:
    """Every writer (with the gain after it) and every reader of a saved model, by key."""
    checkpoint = Checkpoint.open(str(folder))
    found = match(find_layout(checkpoint.config), checkpoint)
    values = {}
    for place in (*found.hookpoints, *found.readers()):
        dense = whole(checkpoint, found, place).dense
        assert dense is not None
        values[place.key] = dense
    return values


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether two sets of matrices are equal entry by entry, in the same order."""
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def writer_name(
    layout: Layout, tensors: Mapping[str, torch.Tensor], layer: int, writer: str
) -> str:
    """Name of a writer's weight in a state dict."""
    tail = f"{layout.layers}.{layer}.{layout.writer(writer)}.weight"
    (name,) = (name for name in tensors if name == tail or name.endswith("." + tail))
    return name


def unit(size: int, seed: int) -> torch.Tensor:
    """A random unit vector."""
    vector = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    scaled: torch.Tensor = vector / vector.norm()
    return scaled


def directions(
    base: Path | None, tuned: Path, *, method: Any = "delta", **settings: Any
) -> DirectionSet:
    """The directions of a pair of folders, few and without tokens unless asked for."""
    values: dict[str, Any] = {"k": 4, **NO_CONTROLS, "logit_lens_tokens": 0} | settings
    return compute_directions(
        ModelSettings(base=str(base) if base is not None else "", tuned=str(tuned)),
        DirectionSettings(method=method, **values),
    )


def at(found: DirectionSet, layer: int, writer: str) -> list[Direction]:
    """The directions of one hookpoint, by rank."""
    return [
        direction
        for direction in found.directions
        if (direction.hookpoint.layer, direction.hookpoint.writer) == (layer, writer)
    ]


def dense(folder: Path, name: str) -> npt.NDArray[np.float64]:
    """One tensor of a saved model in float64."""
    values: npt.NDArray[np.float64] = load_file(folder / "model.safetensors")[name].double().numpy()
    return values


def adapter(
    folder: Path,
    modules: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    **changes: Any,
) -> Path:
    """A LoRA folder as PEFT writes it, from module path to (lora_A, lora_B)."""
    folder.mkdir(parents=True, exist_ok=True)
    rank = next(iter(modules.values()))[0].shape[0]
    table = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 16,
        "bias": "none",
        "base_model_name_or_path": None,
        "target_modules": sorted({module.rpartition(".")[2] for module in modules}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(table | changes), encoding="utf-8")
    tensors = {
        f"base_model.model.{module}.lora_{side}.weight": factor.contiguous()
        for module, factors in modules.items()
        for side, factor in zip("AB", factors, strict=True)
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def fill_factors(wrapped: Any, seed: int) -> None:
    """Puts random numbers into the factors of a model that PEFT wrapped."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


def factors(d_in: int, rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random lora_A [rank, d_in] and lora_B [D_MODEL, rank]."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rank, d_in, generator=generator),
        torch.randn(D_MODEL, rank, generator=generator),
    )


def save_tokenizer(folder: Path) -> Any:
    """A byte-level tokenizer of VOCABULARY tokens: bytes, a few words, two special tokens."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    # The last letters of the alphabet are stand-ins for bytes that are no character by themselves.
    kept = [*alphabet[:60], *alphabet[-30:]]
    vocabulary = {"<s>": 0, "</s>": 1} | {token: place + 2 for place, token in enumerate(kept)}
    vocabulary |= {
        token: len(vocabulary) + place for place, token in enumerate(("Ġa", "ab", "Ġab"))
    }
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[], unk_token=None))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
