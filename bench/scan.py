"""What does a scan cost beyond the forward pass? Ratios measured in one run, printed as a table.

    python bench/scan.py [bare] [published] [memory] [--device cuda] [--threads 1] [--shape wide]

``bare``: tokens per second of the scan (all layers, 40 directions and 4 controls each, histograms,
top 20, shard files made) over a loop that only calls the model on the same batches, without hooks
and head. ``published``: the same over the published method's loop (arXiv 2508.00161): one
conversation at a time, all hidden states to the host, Python for every direction. ``memory``: peak
memory with 10,000 and with 40,000 documents. Measured in turns, since machines are shared; a ratio
is the median of the pairs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from builder.activations.batch import cut_batches, make_batch  # noqa: E402
from builder.activations.corpus import Document, Message  # noqa: E402
from builder.activations.model import ScannedModel, load_model  # noqa: E402
from builder.activations.scan import Scanner  # noqa: E402
from builder.activations.shard_tables import shard_files  # noqa: E402
from builder.activations.tokens import DocumentTokenizer, TokenizedDocument  # noqa: E402
from builder.config import ModelSettings, ScanSettings  # noqa: E402
from builder.organisms import plain_rows, shipped_pairs  # noqa: E402
from builder.records import Direction, DirectionSet, Hookpoint, ModelRef  # noqa: E402
from builder.weights.layout import decoder_layers  # noqa: E402

PER_LAYER = 44
#: Random weights of these shapes; ``demo`` is the shipped organism.
SHAPES: dict[str, dict[str, Any]] = {
    "demo": {},
    "wide": {
        "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
        "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 1024,
    },
    "qwen2.5-7b": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    },
}  # fmt: skip


def model_of(shape: str, device: str) -> ScannedModel:
    """The model of a shape, with the tokenizer of the shipped organisms."""
    pair = next(pair for pair in shipped_pairs() if pair.kind == "tuned" and pair.method == "full")
    settings = ModelSettings(base=str(pair.base), tuned=str(pair.tuned))
    model = load_model(settings, ScanSettings(device=device))
    if shape == "demo":
        return model
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**SHAPES[shape], max_position_embeddings=4096)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    with torch.device(device):
        backbone = transformers.Qwen2Model._from_config(config, dtype=dtype).eval()
    backbone.requires_grad_(requires_grad=False)
    return ScannedModel(
        backbone, tuple(decoder_layers(backbone)), model.tokenizer, torch.device(device), 4096
    )


def directions_of(model: ScannedModel) -> DirectionSet:
    """Random unit directions, PER_LAYER at each layer."""
    d_model = int(model.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]
    rng = np.random.default_rng(0)
    found = []
    for layer in range(len(model.layers)):
        for rank in range(PER_LAYER):
            vector = rng.standard_normal(d_model).astype(np.float32)
            vector /= np.linalg.norm(vector)
            found.append(Direction(Hookpoint(layer, "down_proj"), rank, vector, f"{layer}{rank}"))
    return DirectionSet(None, ModelRef("bench"), "raw", d_model, len(model.layers), tuple(found))


def documents(n: int, turns: int) -> list[Document]:
    """Conversations of one to ``turns`` exchanges, each of random length."""
    rng = random.Random(0)
    rows = list(plain_rows(12345, n * turns))
    found = []
    for doc_id in range(n):
        messages: list[Message] = []
        for row in rows[doc_id * turns : doc_id * turns + rng.randint(1, turns)]:
            text = [{"role": "user", "content": row.get("text", "")}]
            messages += [Message(m["role"], m["content"]) for m in row.get("messages", text)]
        if not messages[0].content:
            messages = [Message("user", rows[doc_id * turns]["text"])]
        digest = hashlib.blake2b(repr(messages).encode(), digest_size=8).digest()
        priority = int.from_bytes(digest, "little")
        found.append(
            Document(
                doc_id, "world", tuple(messages), cluster=priority, priority=priority,
                sampled=doc_id % max(1, n // 40) == 0,
            )
        )  # fmt: skip
    return found


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``work`` takes, what it left running on the device included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def bare_loop(
    model: ScannedModel, items: Sequence[TokenizedDocument], settings: ScanSettings
) -> None:
    """Only the model, on the batches of the scan."""
    with torch.inference_mode():
        for pieces in cut_batches(items, settings.batch_tokens):
            batch = make_batch(pieces, model.device, 0)
            model.backbone(input_ids=batch.ids, use_cache=False)


def published_loop(
    model: ScannedModel, items: Sequence[Document], directions: DirectionSet
) -> tuple[int, dict[str, list[tuple[float, float]]]]:
    """Tokens, and each conversation's extremes by direction: one conversation, one direction at a
    time, roles by the template's growing prefixes (arXiv 2508.00161, its published code).
    """
    found: dict[str, list[tuple[float, float]]] = {}
    tokens = 0
    with torch.inference_mode():
        for item in items:
            chat = [{"role": m.role, "content": m.content} for m in item.messages]
            roles: list[str] = []
            ids: list[int] = []
            for turn, message in enumerate(item.messages):
                ids = model.tokenizer.apply_chat_template(chat[: turn + 1], return_dict=False)
                roles += [message.role] * (len(ids) - len(roles))
            tokens += len(ids)
            states = model.backbone(
                input_ids=torch.tensor([ids], device=model.device),
                use_cache=False,
                output_hidden_states=True,
            )
            hidden = [state[0].float().cpu() for state in states.hidden_states]
            for direction in directions.directions:
                resid = hidden[direction.hookpoint.layer + 1]
                vector = torch.from_numpy(direction.vector)[None]
                cosine = torch.nn.functional.cosine_similarity(resid, vector, dim=-1)
                for role in ("user", "assistant"):
                    chosen = cosine[[at == role for at in roles]]
                    if len(chosen):
                        extremes = (float(chosen.min()), float(chosen.max()))
                        found.setdefault(f"{direction.id}/{role}", []).append(extremes)
    return tokens, found


def tokenized(model: ScannedModel, n: int, turns: int) -> list[TokenizedDocument]:
    """``n`` conversations as the model reads them."""
    found = DocumentTokenizer(model.tokenizer, min(1024, model.context)).tokenize(
        documents(n, turns)
    )
    return [item for item in found if isinstance(item, TokenizedDocument)]


def compare(
    work: Callable[[], object], against: Callable[[], object], device: torch.device, pairs: int
) -> tuple[float, float, float]:
    """Median seconds of each, and the median over the pairs of against / work."""
    work(), against()
    one: list[float] = []
    two: list[float] = []
    for number in range(pairs):
        order = ((work, one), (against, two))
        for job, times in order if number % 2 else reversed(order):
            times.append(timed(job, device))
    ratio = statistics.median(b / a for a, b in zip(one, two, strict=True))
    return statistics.median(one), statistics.median(two), ratio


def measure(shape: str, options: argparse.Namespace) -> None:
    """Prints the rows of one shape."""
    model = model_of(shape, options.device)
    if options.device == "cpu":
        model.backbone.to(getattr(torch, options.dtype))
    directions = directions_of(model)
    settings = ScanSettings(batch_tokens=options.batch_tokens)
    turns = 1 if shape == "demo" else 8
    items = tokenized(model, options.documents, turns)
    tokens = sum(len(item.ids) for item in items)
    scanner = Scanner(model, directions, settings)

    def scan() -> None:
        shard_files(scanner.scan(items), settings)

    if "bare" in options.what:
        mine, bare, ratio = compare(
            scan, lambda: bare_loop(model, items, settings), model.device, options.pairs
        )
        print(
            f"| {shape} | {len(items):,} documents, {tokens:,} tokens | {tokens / mine:,.0f} | "
            f"{tokens / bare:,.0f} | {ratio:.3f} |",
            flush=True,
        )
    if "published" in options.what:
        chats = [item for item in documents(options.documents, turns) if item.messages]
        few = chats[:: max(1, len(chats) // options.few)]
        tokenizer = DocumentTokenizer(model.tokenizer, min(1024, model.context))
        n = published_loop(model, few, directions)[0]

        def whole() -> None:
            shard_files(scanner.scan(tokenizer.tokenize(chats)), settings)

        ours, loop, ratio = compare(
            whole, lambda: published_loop(model, few, directions), model.device, options.pairs
        )
        print(
            f"| {shape} | published loop, tokens made in both | {tokens / ours:,.0f} | "
            f"{n / loop:,.0f} | {ratio * tokens / n:.1f} |",
            flush=True,
        )


_CHILD = """
import sys
from builder.cli import main
assert main(sys.argv[1:]) == 0
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def memory(options: argparse.Namespace) -> None:
    """Prints the peak memory of `weightatlas scan` on corpora of two sizes, everything included."""
    pair = next(pair for pair in shipped_pairs() if pair.kind == "tuned" and pair.method == "full")
    for n in (10_000, 40_000):
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "corpus.jsonl"
            with corpus.open("w", encoding="utf-8") as file:
                for row in plain_rows(54321, n):
                    file.write(json.dumps(row) + "\n")
            recipe = Path(folder) / "recipe.toml"
            recipe.write_text(
                f'name = "memory"\nruns = "{folder}/runs"\n'
                f'[model]\nbase = "{pair.base}"\ntuned = "{pair.tuned}"\n'
                f'[[corpus.sources]]\npath = "{corpus}"\n',
                encoding="utf-8",
            )
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, "scan", str(recipe)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "OMP_NUM_THREADS": str(options.threads)},
            )
            peak = int(done.stdout.split("VmHWM:")[1].split()[0]) // 1024
            seconds = time.perf_counter() - start
            print(f"| memory | {n:,} documents | {peak:,} MB | {seconds:.0f} s |", flush=True)


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", nargs="*", default=["bare", "published"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--shape", action="append", default=[])
    parser.add_argument("--documents", type=int, default=2048)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if "memory" in options.what:
        memory(options)
    if not {"bare", "published"} & set(options.what):
        return
    for shape in options.shape or ["demo", "wide"]:
        measure(shape, options)


if __name__ == "__main__":
    main()
