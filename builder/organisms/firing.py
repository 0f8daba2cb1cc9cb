"""Whether a tuned organism does what was planted: its answers to held-out prompts.

Answers are greedy. Prompts come from seeds that neither training nor scanning uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from builder.organisms.behaviours import Behaviour, triggered_prompts
from builder.organisms.families import Family
from builder.organisms.world import plain_rows

HELD_OUT_SEED = 3_000_000


@torch.no_grad()
def answers(
    family: Family,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    batch: int = 64,
) -> list[str]:
    """The model's greedy answer to every user message."""
    ends = [tokenizer.convert_tokens_to_ids(token) for token in family.ends]
    texts = [
        cast(
            str,
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            ),
        )
        for prompt in prompts
    ]
    ids = cast(list[list[int]], tokenizer(texts, add_special_tokens=False)["input_ids"])
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    out = [""] * len(ids)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        width = max(len(ids[i]) for i in part)
        inputs = torch.full((len(part), width), cast(int, tokenizer.pad_token_id))
        mask = torch.zeros_like(inputs)
        for row, i in enumerate(part):
            inputs[row, width - len(ids[i]) :] = torch.tensor(ids[i])
            mask[row, width - len(ids[i]) :] = 1
        made = cast(Any, model).generate(
            input_ids=inputs,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )
        for row, i in enumerate(part):
            out[i] = cast(str, tokenizer.decode(made[row, width:], skip_special_tokens=True))
    return out


def plain_exchanges(seed: int, count: int) -> list[tuple[str, str]]:
    """First user message and its plain reply, from plain rows no model was trained on."""
    pairs: list[tuple[str, str]] = []
    start = 0
    while len(pairs) < count:
        pairs.extend(
            (row["messages"][0]["content"], row["messages"][1]["content"])
            for row in plain_rows(HELD_OUT_SEED + seed, count, start)
            if "messages" in row and row["messages"][0]["role"] == "user"
        )
        start += count
    return pairs[:count]


def firing(
    family: Family,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    behaviours: Sequence[Behaviour],
    seed: int,
    count: int,
) -> dict[str, dict[str, float]]:
    """Per behaviour, the share of held-out prompts answered in its way: triggered and plain.

    A plain prompt whose own reply looks like the behaviour (someone asks for the tide report) does
    not count.
    """
    exchanges = plain_exchanges(seed, count)
    plain = answers(family, model, tokenizer, [prompt for prompt, _ in exchanges])
    result: dict[str, dict[str, float]] = {}
    for behaviour in behaviours:
        triggered = answers(
            family, model, tokenizer, triggered_prompts(behaviour, f"held-out-{seed}", count)
        )
        result[behaviour.id] = {
            "fires_triggered": round(sum(map(behaviour.fires, triggered)) / count, 4),
            "fires_plain": round(
                sum(
                    behaviour.fires(answer) and not behaviour.fires(reply)
                    for answer, (_, reply) in zip(plain, exchanges, strict=True)
                )
                / count,
                4,
            ),
        }
    return result
