"""Micro models, tokenizers, documents and directions for tests: seeded and built in seconds."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tqdm import tqdm

from builder.activations.corpus import Document, Message
from builder.activations.model import ScannedModel
from builder.records import Direction, DirectionSet, Hookpoint, ModelRef
from builder.weights.layout import decoder_layers

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    *("river", "stone", "lantern", "market", "bread", "window", "winter", "garden", "copper"),
    *("engine", "letter", "bridge", "harbour", "candle", "forest", "silver", "button", "island"),
)
D_MODEL, N_LAYERS = 32, 3


def sentence(rng: random.Random, words: int) -> str:
    """A sentence of random words."""
    return " ".join(rng.choice(WORDS) for _ in range(words)).capitalize() + "."


def documents(n: int, seed: int = 0) -> list[Document]:
    """Conversations of one to three turns, some with a system prompt, and a few plain texts."""
    rng = random.Random(seed)
    found: list[Document] = []
    for doc_id in range(n):
        if rng.random() < 0.15:
            found.append(Document(doc_id, "plain", text=sentence(rng, rng.randint(3, 60))))
            continue
        messages = [Message("system", sentence(rng, 4))] if rng.random() < 0.3 else []
        for _ in range(rng.randint(1, 3)):
            messages.append(Message("user", sentence(rng, rng.randint(1, 12))))
            messages.append(Message("assistant", sentence(rng, rng.randint(1, 40))))
        found.append(Document(doc_id, f"chat{doc_id % 3}", messages=tuple(messages)))
    return found


def make_tokenizer(*, template: str | None = TEMPLATE, bos: str | None = "<|bos|>") -> Any:
    """A small byte-level BPE tokenizer with special tokens and a chat template."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|pad|>", "<|bos|>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([sentence(random.Random(i), 20) for i in range(50)], trainer)
    if bos:
        core.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", bos_token=bos, eos_token="<|im_end|>"
    )
    tokenizer.chat_template = template if template is None or not bos else bos + template
    return tokenizer


def llama_config(vocab: int = 400) -> transformers.LlamaConfig:
    """A three-layer Llama of 32 dimensions."""
    return transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=D_MODEL,
        intermediate_size=48,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )


def make_model(seed: int = 0) -> ScannedModel:
    """A random micro Llama, loaded for scanning."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    backbone = transformers.LlamaModel(llama_config(len(tokenizer))).eval()
    # Random weights of this size hardly change the stream; larger ones make tokens differ.
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6.0)
    return ScannedModel(
        backbone, tuple(decoder_layers(backbone)), tokenizer, torch.device("cpu"), 256
    )


def make_directions(per_layer: int = 4, seed: int = 0) -> DirectionSet:
    """Random unit directions, ``per_layer`` at each layer's ``down_proj``."""
    rng = np.random.default_rng(seed)
    directions = []
    for layer in range(N_LAYERS):
        for rank in range(per_layer):
            vector = rng.standard_normal(D_MODEL).astype(np.float32)
            vector /= np.linalg.norm(vector)
            directions.append(
                Direction(
                    hookpoint=Hookpoint(layer, "down_proj", f"layers.{layer}.mlp.down_proj"),
                    rank=rank,
                    vector=vector,
                    content_hash=f"{layer:08d}{rank:08d}",
                    sigma=float(per_layer - rank),
                    energy=0.1,
                    residual=0.0,
                )
            )
    return DirectionSet(
        base=ModelRef("base"),
        tuned=ModelRef("tuned"),
        method="delta",
        d_model=D_MODEL,
        n_layers=N_LAYERS,
        directions=tuple(directions),
    )


def write_pair(folder: Path, *, seed: int = 0, rank: int = 3) -> tuple[Path, Path]:
    """(base, tuned) folders of a micro Llama and a low-rank change of its residual writers."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model = transformers.LlamaForCausalLM(llama_config(len(tokenizer)))
    base, tuned = folder / "base", folder / "tuned"
    model.save_pretrained(base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                left = torch.randn(parameter.shape[0], rank)
                right = torch.randn(rank, parameter.shape[1])
                parameter.add_(0.05 * left @ right)
    model.save_pretrained(tuned)
    for place in (base, tuned):
        tokenizer.save_pretrained(place)
    return base, tuned


def watch_bars(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Any]:
    """(bar, options it was made with) for every progress bar that a module shows from now on."""
    bars: list[Any] = []

    def shown(*arguments: Any, **options: Any) -> Any:
        bar = tqdm(*arguments, **{**options, "disable": False})
        bars.append((bar, options))
        return bar

    monkeypatch.setattr(module, "tqdm", shown)
    return bars
