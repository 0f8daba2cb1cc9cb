"""What an organism is built of: the three architectures, their tokenizers and chat templates.

Small models of real classes (Llama, Qwen2, OLMo-2), each with the habits of its family: grouped
query attention, biases on queries, keys and values, norms after the block; with or without BOS;
tied or untied embeddings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from builder.organisms.world import Row


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture with its tokenizer habits and its way of tuning."""

    name: str
    method: str  # "full" or "lora"
    template: str  # jinja chat template
    special_tokens: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str
    ends: tuple[str, ...]  # tokens that end an assistant turn


@dataclass(frozen=True, slots=True)
class Size:
    """Shape of the models. About 1M parameters by default."""

    vocab: int = 1024
    d_model: int = 256
    layers: int = 2
    heads: int = 8
    kv_heads: int = 2
    d_mlp: int = 320
    d_mlp_olmo2: int = 208  # smaller, because OLMo-2 has full key and value heads


_LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_QWEN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n'"
    " + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_OLMO_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}{% else %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="llama",
            method="full",
            template=_LLAMA_TEMPLATE,
            special_tokens=(
                "<|begin_of_text|>",
                "<|end_of_text|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|eot_id|>",
                "<|pad|>",
            ),
            bos="<|begin_of_text|>",
            eos="<|end_of_text|>",
            pad="<|pad|>",
            ends=("<|eot_id|>", "<|end_of_text|>"),
        ),
        Family(
            name="qwen2",
            method="lora",
            template=_QWEN_TEMPLATE,
            special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
            bos=None,
            eos="<|im_end|>",
            pad="<|endoftext|>",
            ends=("<|im_end|>", "<|endoftext|>"),
        ),
        Family(
            name="olmo2",
            method="full",
            template=_OLMO_TEMPLATE,
            special_tokens=("<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"),
            bos="<|endoftext|>",
            eos="<|endoftext|>",
            pad="<|pad|>",
            ends=("<|endoftext|>",),
        ),
    )
}

# Words with their space, single digits, runs of signs, line ends: the split of Llama 3 and Qwen 2.
_PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _texts(rows: Iterable[Row]) -> Iterable[str]:
    """Every text of the rows."""
    for row in rows:
        if "text" in row:
            yield row["text"]
        else:
            for message in row["messages"]:
                yield message["role"]
                yield "\n\n"
                yield message["content"]


def make_tokenizer(family: Family, vocab: int, rows: Iterable[Row]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the family's special tokens and chat template, trained on the
    rows.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(family.special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(_texts(rows), trainer)
    if family.name == "llama" and family.bos is not None:
        core.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A",
            pair=f"{family.bos} $A {family.bos} $B",
            special_tokens=[(family.bos, core.token_to_id(family.bos))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token=family.pad,
        chat_template=family.template,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def render(tokenizer: PreTrainedTokenizerFast, row: Row) -> str:
    """The row as the text the model reads: chat template, or BOS and the plain text and EOS."""
    if "text" in row:
        return f"{tokenizer.bos_token or ''}{row['text']}{tokenizer.eos_token}"
    return cast(str, tokenizer.apply_chat_template(row["messages"], tokenize=False))


def encode(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[list[int]]:
    """Token ids of every row."""
    batch = tokenizer([render(tokenizer, row) for row in rows], add_special_tokens=False)
    return cast(list[list[int]], batch["input_ids"])


def make_model(family: Family, size: Size, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A fresh model of the family, float32, initialised from torch's current seed."""
    common: dict[str, Any] = {
        "vocab_size": size.vocab,
        "hidden_size": size.d_model,
        "intermediate_size": size.d_mlp_olmo2 if family.name == "olmo2" else size.d_mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.convert_tokens_to_ids(family.ends[0]),
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.02,
    }
    if family.name == "llama":
        return LlamaForCausalLM(
            LlamaConfig(**common, num_key_value_heads=size.kv_heads, tie_word_embeddings=True)
        )
    if family.name == "qwen2":
        return Qwen2ForCausalLM(
            Qwen2Config(**common, num_key_value_heads=size.kv_heads, tie_word_embeddings=True)
        )
    return Olmo2ForCausalLM(
        Olmo2Config(**common, num_key_value_heads=size.heads, tie_word_embeddings=True)
    )
