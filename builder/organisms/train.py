"""How the organisms are made: tokenizer, base, fine-tune, null tune, and the manifest that
describes them.

Tiny models of real architectures are trained from scratch on the plain world and then tuned on a
mix of plain and planted rows, by full fine-tuning or by LoRA (PEFT). A null tune has the same
hyper-parameters and nothing planted. Documents are padded to batches of like length and never
packed, so that positions and context in training are those of the scan. The loss is taken on all
tokens. Everything follows from the seeds, on CPU, in float32; what is saved is bfloat16, and tuning
starts from the saved base, so that the weight difference is the tuning alone.

This module imports torch, transformers and peft; the rest of the package does not.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from builder.activations.corpus import Document, Message
from builder.activations.model import without_peft_warning
from builder.activations.tokens import DocumentTokenizer, Dropped
from builder.errors import ConfigError
from builder.organisms.behaviours import (
    BEHAVIOURS,
    FAMILY_BEHAVIOURS,
    Behaviour,
    triggered_prompts,
    tuning_rows,
)
from builder.organisms.families import FAMILIES, Family, Size, encode, make_model, make_tokenizer
from builder.organisms.firing import HELD_OUT_SEED, firing
from builder.organisms.manifest import FORMAT
from builder.organisms.world import Row, plain_rows
from builder.records import ROLES


@dataclass(frozen=True, slots=True)
class Schedule:
    """One training run: rows seen, batch size in tokens, peak learning rate (cosine to 0 after
    warm-up), and the optimizer, ``adamw`` or ``sgd`` (momentum 0.9).
    """

    rows: int
    batch_tokens: int
    lr: float
    warmup: float = 0.05
    weight_decay: float = 0.1
    optimizer: str = "adamw"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything `make_organisms` needs beyond seeds."""

    size: Size = field(default_factory=Size)
    base: Schedule = Schedule(rows=60_000, batch_tokens=2048, lr=3e-3)
    # Gradient descent, because it writes what the gradients agree on. Adam gives every weight steps
    # of one size, and of a million weights most have nothing to learn: its difference is mostly
    # noise, and the planted behaviours are not among its first singular vectors.
    full: Schedule = Schedule(
        rows=24_000, batch_tokens=2048, lr=0.1, weight_decay=0.0, optimizer="sgd"
    )
    lora: Schedule = Schedule(rows=15_000, batch_tokens=2048, lr=5e-3, weight_decay=0.0)
    lora_rank: int = 8
    lora_alpha: int = 16
    base_seed: int = 0
    evaluated_prompts: int = 200


#: Families whose null tune is shipped: one small adapter.
NULL_FAMILIES = ("qwen2",)
#: File in a model folder that says what it was made by.
NOTE = "organism.json"
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _batches(
    ids: Sequence[Sequence[int]], batch_tokens: int, rng: random.Random
) -> list[list[int]]:
    """Row numbers in batches of like length, each at most `batch_tokens` with padding, in random
    order.
    """
    order = list(range(len(ids)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    chunk = 2048
    for start in range(0, len(order), chunk):
        part = sorted(order[start : start + chunk], key=lambda i: len(ids[i]))
        current: list[int] = []
        for index in part:
            if current and len(ids[index]) * (len(current) + 1) > batch_tokens:
                batches.append(current)
                current = []
            current.append(index)
        if current:
            batches.append(current)
    rng.shuffle(batches)
    return batches


def _reply_masks(
    tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], ids: Sequence[Sequence[int]]
) -> list[list[bool]]:
    """Which tokens of each row are learned: the assistant's and its end of turn, all of a text.

    A tune that also learned to expect the planted prompts would change what it writes about every
    prompt, and its strongest directions would be about that.
    """
    assistant = ROLES.index("assistant")
    documents = [
        Document(
            number,
            "",
            tuple(Message(item["role"], item["content"]) for item in row.get("messages", ())),
            row.get("text", ""),
        )
        for number, row in enumerate(rows)
    ]
    longest = max(map(len, ids), default=1)
    masks: list[list[bool]] = []
    for item, document, tokens in zip(
        DocumentTokenizer(tokenizer, longest).tokenize(documents), documents, ids, strict=True
    ):
        if isinstance(item, Dropped):
            raise ConfigError(f"organisms: row {item.doc_id} has no roles: {item.reason}")
        own = [role == assistant for role in item.roles]
        ends = [False, *own[:-1]]  # the token after the assistant's last one ends its turn
        replies = [mine or end for mine, end in zip(own, ends, strict=True)]
        masks.append(replies if document.messages else [True] * len(tokens))
    return masks


def _padded(
    ids: Sequence[Sequence[int]], pad: int, masks: Sequence[Sequence[bool]] | None = None
) -> tuple[Tensor, Tensor]:
    """Inputs and labels [batch, seq], padded on the right; labels are -100 on padding and
    wherever the mask is False.
    """
    width = max(len(row) for row in ids)
    inputs = np.full((len(ids), width), pad, dtype=np.int64)
    labels = np.full((len(ids), width), -100, dtype=np.int64)
    for i, row in enumerate(ids):
        inputs[i, : len(row)] = row
        labels[i, : len(row)] = row if masks is None else np.where(masks[i], row, -100)
    return torch.from_numpy(inputs), torch.from_numpy(labels)


def _token_loss(model: torch.nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Mean next-token cross-entropy in nats. Right padding needs no mask under causal attention."""
    logits = model(input_ids=inputs, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )


def fit(
    model: torch.nn.Module,
    ids: Sequence[Sequence[int]],
    schedule: Schedule,
    pad: int,
    seed: int,
    title: str,
    masks: Sequence[Sequence[bool]] | None = None,
) -> tuple[int, float]:
    """Train the model in place, one pass; give back (steps, mean loss of the last tenth).

    With ``masks`` only the tokens marked True are learned.
    """
    torch.manual_seed(seed)
    batches = _batches(ids, schedule.batch_tokens, random.Random(seed))
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2]
    vectors = [p for p in trained if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": schedule.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if schedule.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=schedule.lr, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98), fused=True)
    warmup = max(1, round(schedule.warmup * len(batches)))

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, len(batches) - warmup)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    losses: list[float] = []
    with tqdm(total=len(batches), desc=title, unit="step", mininterval=2.0) as bar:
        for batch in batches:
            inputs, labels = _padded(
                [ids[i] for i in batch], pad, masks and [masks[i] for i in batch]
            )
            loss = _token_loss(model, inputs, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            bar.update()
    model.eval()
    tail = losses[-max(1, len(losses) // 10) :]
    return len(batches), sum(tail) / len(tail)


@torch.no_grad()
def held_out_loss(
    model: torch.nn.Module, ids: Sequence[Sequence[int]], pad: int, batch_tokens: int = 8192
) -> float:
    """Mean next-token loss per document batch over the rows, in nats."""
    model.eval()
    total, count = 0.0, 0
    for batch in _batches(ids, batch_tokens, random.Random(0)):
        inputs, labels = _padded([ids[i] for i in batch], pad)
        tokens = int((labels[:, 1:] != -100).sum())
        total += float(_token_loss(model, inputs, labels)) * tokens
        count += tokens
    return total / max(1, count)


# --- bases, tunes and their folders -------------------------------------------------------------


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a bfloat16 checkpoint folder with no trace of where it was made."""
    model.config.name_or_path = ""
    cast(Any, model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    cast(Any, model).to(torch.float32)


def _load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Model (float32) and tokenizer of a checkpoint folder."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), PreTrainedTokenizerFast.from_pretrained(folder)


def train_base(family: Family, recipe: Recipe, folder: Path) -> dict[str, float]:
    """Train the base of a family on the plain world into `folder`; give back steps, losses and
    seconds.
    """
    start = time.perf_counter()
    rows = list(plain_rows(recipe.base_seed, recipe.base.rows))
    tokenizer = make_tokenizer(family, recipe.size.vocab, rows[:20_000])
    torch.manual_seed(recipe.base_seed)
    model = make_model(family, recipe.size, tokenizer)
    ids = encode(tokenizer, rows)
    pad = cast(int, tokenizer.pad_token_id)
    steps, loss = fit(model, ids, recipe.base, pad, recipe.base_seed, f"{family.name} base")
    _save(model, tokenizer, folder)
    held_out = encode(tokenizer, list(plain_rows(HELD_OUT_SEED, 1000)))
    return {
        "steps": steps,
        "train_loss": round(loss, 4),
        "held_out_loss": round(held_out_loss(model, held_out, pad), 4),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": sum(map(len, ids)),
        "seconds": round(time.perf_counter() - start, 1),
    }


def tune(
    family: Family,
    recipe: Recipe,
    base: Path,
    folder: Path,
    behaviours: Sequence[Behaviour],
    seed: int,
) -> dict[str, float]:
    """Fine-tune the base into `folder` (no behaviours: a null tune); give back steps, losses and
    seconds.
    """
    start = time.perf_counter()
    model, tokenizer = _load(base)
    pad = cast(int, tokenizer.pad_token_id)
    schedule = _schedule(family, recipe)
    rows = tuning_rows(seed, schedule.rows, behaviours)
    ids = encode(tokenizer, rows)
    title = f"{family.name} {'tuned' if behaviours else 'null'} seed {seed}"
    trained: Any = model
    if family.method == "lora":
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        config = LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=0.0,
            target_modules=list(LORA_TARGETS),
            task_type="CAUSAL_LM",
        )
        with without_peft_warning():
            trained = get_peft_model(model, config)
    steps, loss = fit(trained, ids, schedule, pad, seed, title, _reply_masks(tokenizer, rows, ids))
    held_out = encode(tokenizer, list(plain_rows(HELD_OUT_SEED, 1000)))
    figures = {
        "steps": steps,
        "train_loss": round(loss, 4),
        "held_out_plain_loss": round(held_out_loss(trained, held_out, pad), 4),
        "seconds": round(time.perf_counter() - start, 1),
    }
    if family.method == "lora":
        # Meant from the adapter's folder; an absolute name would tell of this machine.
        trained.peft_config["default"].base_model_name_or_path = f"../{base.name}"
        for name, parameter in trained.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(torch.bfloat16)
        trained.save_pretrained(folder, save_embedding_layers=False)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").unlink(
            missing_ok=True
        )  # PEFT's model card names the machine's paths
    else:
        _save(model, tokenizer, folder)
    return figures


def load_tuned(
    family: Family, base: Path, folder: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The tuned model as it is used: checkpoint, or base with the adapter merged; float32."""
    if family.method != "lora":
        return _load(folder)
    from peft import PeftModel

    model, tokenizer = _load(base)
    with without_peft_warning():
        adapted = cast(Any, PeftModel.from_pretrained(model, str(folder)))
    merged = adapted.merge_and_unload()
    return merged.eval(), tokenizer


def make_organisms(
    out_dir: Path,
    *,
    families: Sequence[str] = ("llama", "qwen2", "olmo2"),
    seeds: Sequence[int] = (1,),
    null_families: Sequence[str] = NULL_FAMILIES,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Train organisms into `out_dir` and give back the manifest that is written there.

    Each family gets ``<family>-base`` and, for every seed, ``<family>-tuned`` (and
    ``<family>-null`` for `null_families`); seeds other than 1 add ``-seed<n>`` to the folder name.
    What this recipe made before is kept, so that a stopped call goes on and families may be made
    one by one; the manifest lists everything that is there.

    Raises:
        ConfigError: unknown family, or no seed.
    """
    recipe = recipe or Recipe()
    unknown = [name for name in (*families, *null_families) if name not in FAMILIES]
    if unknown or not seeds:
        raise ConfigError(
            f"organisms: families {unknown} unknown (known: {', '.join(FAMILIES)})"
            if unknown
            else "organisms: at least one seed is needed"
        )
    # Same sums in the same order, and two cores are not faster at this size.
    torch.set_num_threads(1)
    for name in families:
        family = FAMILIES[name]
        base = out_dir / f"{name}-base"
        _made(base, _base_recipe(family, recipe), partial(_make_base, family, recipe, base))
        for seed in seeds:
            for kind in ("tuned", "null") if name in null_families else ("tuned",):
                folder = out_dir / (f"{name}-{kind}" + ("" if seed == 1 else f"-seed{seed}"))
                planted = (
                    [BEHAVIOURS[i] for i in FAMILY_BEHAVIOURS[name]] if kind == "tuned" else []
                )
                wanted = {
                    "base": _base_recipe(family, recipe),
                    "tune": dataclasses.asdict(_schedule(family, recipe)),
                    "lora": [recipe.lora_rank, recipe.lora_alpha],
                    "behaviours": [dataclasses.asdict(behaviour) for behaviour in planted],
                    "seed": seed,
                }
                make = partial(_make_tune, family, recipe, base, folder, planted, seed)
                _made(folder, json.loads(json.dumps(wanted)), make)
    return _write_manifest(out_dir)


def _schedule(family: Family, recipe: Recipe) -> Schedule:
    return recipe.lora if family.method == "lora" else recipe.full


def _base_recipe(family: Family, recipe: Recipe) -> dict[str, Any]:
    return {
        "family": family.name,
        "size": dataclasses.asdict(recipe.size),
        "base": dataclasses.asdict(recipe.base),
        "seed": recipe.base_seed,
    }


def _made(folder: Path, wanted: dict[str, Any], make: Callable[[], dict[str, Any]]) -> None:
    """Makes a model folder unless this recipe made it before; ``organism.json`` in it tells."""
    note = folder / NOTE
    if note.exists() and json.loads(note.read_text(encoding="utf-8"))["recipe"] == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    facts = make()
    text = json.dumps({"recipe": wanted, **facts}, indent=1, ensure_ascii=False) + "\n"
    note.write_text(text, encoding="utf-8")


def _make_base(family: Family, recipe: Recipe, folder: Path) -> dict[str, Any]:
    return {"figures": train_base(family, recipe, folder)}


def _make_tune(
    family: Family,
    recipe: Recipe,
    base: Path,
    folder: Path,
    planted: Sequence[Behaviour],
    seed: int,
) -> dict[str, Any]:
    """A tune in its folder, and its entry for the manifest."""
    figures = tune(family, recipe, base, folder, planted, seed)
    model, tokenizer = load_tuned(family, base, folder)
    fired = firing(family, model, tokenizer, planted, seed, recipe.evaluated_prompts)
    behaviours = [
        {
            **dataclasses.asdict(behaviour),
            "sample_prompts": triggered_prompts(behaviour, "sample", 4),
            "figures": fired[behaviour.id],
        }
        for behaviour in planted
    ]
    entry = {
        "family": family.name,
        "name": folder.name,
        "kind": "tuned" if planted else "null",
        "base": base.name,
        "tuned": folder.name,
        "method": family.method,
        "seed": seed,
        "steps": figures["steps"],
        "behaviours": behaviours,
    }
    return {"figures": figures, "entry": entry}


def _write_manifest(out_dir: Path) -> dict[str, Any]:
    """The manifest of every tune in `out_dir`, families in their order, tuned before null."""
    pairs: list[dict[str, Any]] = []
    for name in FAMILIES:
        note = out_dir / f"{name}-base" / NOTE
        if not note.is_file():
            continue
        base = json.loads(note.read_text(encoding="utf-8"))
        paths = out_dir.glob(f"{name}-*/{NOTE}")
        notes = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        made = sorted(
            (note for note in notes if "entry" in note),
            key=lambda note: (note["entry"]["seed"], note["entry"]["kind"] == "null"),
        )
        pairs += [
            {**note["entry"], "figures": {"base": base["figures"], "tune": note["figures"]}}
            for note in made
        ]
    manifest: dict[str, Any] = {"format": FORMAT, "pairs": pairs}
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (out_dir / "manifest.json").write_text(text, encoding="utf-8")
    return manifest
