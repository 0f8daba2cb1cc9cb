"""Run folders as a scan leaves them, made up in seconds: no model, only the files and the store.

Directions are random unit vectors; what they answer to is decided here (a theme at each pole), and
activations are drawn around that. Everything is seeded: the same call makes the same run.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builder.activations.shard_files import (
    COUNTS_SCHEMA,
    DOCUMENTS_SCHEMA,
    EXAMPLES_SCHEMA,
    RESERVOIR_SCHEMA,
    STATS_SCHEMA,
)
from builder.records import (
    ACTIVATION_SCALE,
    HISTOGRAM_BINS,
    ROLES,
    DirectionSet,
)
from builder.store import RunStore, write_database
from builder.weights.direction_file import save_directions
from tests.pages.directed import CONTROLS, WIDTH, fixture_directions, middle
from tests.pages.labelled import EXPLAINER, fixture_labels
from tests.pages.texts import MARKUP_ATTACKS, THEMES, hostile_texts

LAYERS, RANKS, TOP, WINDOW = 4, 5, 20, 48

_TOKEN = re.compile(
    r"<\|[a-z_]+\|>|\n+| ?[^\W\d_]{1,5}|[^\W\d_]{1,5}| ?\d{1,3}| ?[^\w\s]|\s+|.", re.DOTALL
)
_USER, _ASSISTANT, _SYSTEM, _TEMPLATE = (
    ROLES.index(role) for role in ("user", "assistant", "system", "template")
)


@dataclass(frozen=True, slots=True)
class Document:
    """One tokenized conversation of the fixture corpus."""

    source: str
    theme: int
    text: str
    tokens: tuple[str, ...]
    ends: npt.NDArray[np.int64]
    roles: npt.NDArray[np.int64]


def make_run(
    folder: Path,
    *,
    name: str,
    title: str,
    seed: int = 0,
    adapter: bool = False,
    hostile: bool = False,
    layers: int = LAYERS,
    ranks: int = RANKS,
    documents: int = 150,
) -> Path:
    """A run folder with a database, as a scan and a labeler would leave it; returns ``folder``."""
    rng = np.random.default_rng(seed)
    directions = fixture_directions(rng, name, layers, ranks, hostile=hostile, adapter=adapter)
    corpus = _corpus(rng, documents, hostile=hostile)
    shard = folder / "shards" / "000000"
    shard.mkdir(parents=True)
    save_directions(folder / "directions.safetensors", directions)
    poles = _poles(rng, directions)
    _write_shard(rng, shard, corpus, directions, poles)
    write_database(
        folder / "run.duckdb",
        directions,
        [shard],
        top=TOP,
        reservoir=40,
        meta=_meta(name, title, corpus, directions, adapter=adapter, hostile=hostile),
        counts=[("noted", "cut at max_tokens", 4)],
    )
    with RunStore(folder / "run.duckdb", read_only=False) as store:
        store.replace_labels(fixture_labels(rng, directions, poles, hostile=hostile))
    return folder


def _corpus(rng: np.random.Generator, n: int, *, hostile: bool) -> list[Document]:
    documents = []
    extra = hostile_texts() if hostile else ()
    for index in range(n):
        at = int(rng.integers(len(THEMES)))
        theme = THEMES[at]
        parts: list[tuple[str, int]] = []
        if rng.random() < 0.3:
            parts += [
                ("<|im_start|>system\n", _TEMPLATE),
                ("You are a helpful assistant.", _SYSTEM),
                ("<|im_end|>\n", _TEMPLATE),
            ]
        for turn in range(int(rng.integers(1, 4))):
            said = theme if turn == 0 else THEMES[int(rng.integers(2, len(THEMES)))]
            asked = said.asked[int(rng.integers(len(said.asked)))]
            answered = said.answered[int(rng.integers(len(said.answered)))]
            if extra and turn == 0:
                asked = extra[index % len(extra)]
                answered = f"{answered} {extra[(index + 1) % len(extra)]}"
            parts += [
                ("<|im_start|>user\n", _TEMPLATE),
                (asked, _USER),
                ("<|im_end|>\n<|im_start|>assistant\n", _TEMPLATE),
                (answered, _ASSISTANT),
                ("<|im_end|>\n", _TEMPLATE),
            ]
        source = MARKUP_ATTACKS[index % 3] if hostile else theme.source
        documents.append(_document(source, at, parts))
    return documents


def _document(source: str, theme: int, parts: list[tuple[str, int]]) -> Document:
    tokens: list[str] = []
    ends: list[int] = []
    roles: list[int] = []
    end = 0
    for text, role in parts:
        for token in _TOKEN.findall(text):
            end += len(token)
            # A character outside the basic plane is two tokens of which each holds a part.
            for _ in range(2 if len(token) == 1 and ord(token) > 0xFFFF else 1):
                tokens.append(token)
                ends.append(end)
                roles.append(role)
    whole = "".join(text for text, _ in parts)
    return Document(source, theme, whole, tuple(tokens), np.asarray(ends), np.asarray(roles))


def _poles(rng: np.random.Generator, directions: DirectionSet) -> list[tuple[int, int] | None]:
    """The themes at the max and min pole of every direction; None for one without a pattern."""
    poles: list[tuple[int, int] | None] = []
    for item in directions.directions:
        first, second = (int(at) for at in rng.permutation(len(THEMES))[:2])
        known = item.kind == "delta" and rng.random() < 0.8
        poles.append((first, second) if known else None)
    # What tests look for is there whatever the seed: the trigger, a topic, other scripts, emoji.
    fixed = {middle(directions): (1, 7), 0: (0, 6), 1: (3, 4), 2: (5, 2)}
    for index, pair in fixed.items():
        poles[index] = pair
    return poles


def _activations(
    rng: np.random.Generator, document: Document, themes: tuple[int, int] | None, centre: float
) -> npt.NDArray[np.float64]:
    noise = rng.standard_normal(len(document.tokens)) * 0.035
    values = centre + noise + 0.5 * np.roll(noise, 1)
    for theme, sign in zip(themes or (), (1.0, -1.0), strict=False):
        words = THEMES[theme].keywords
        strength = 0.55 if theme == 1 else 0.3
        starts = document.ends - np.asarray([len(token) for token in document.tokens])
        for word in words:
            for match in re.finditer(re.escape(word), document.text, re.IGNORECASE):
                inside = (document.ends > match.start()) & (starts < match.end())
                values[inside] += sign * strength * rng.uniform(0.7, 1.0, int(inside.sum()))
        if document.theme == theme and theme != 1:
            values += sign * 0.03
    return np.clip(values, -1, 1)


def _write_shard(
    rng: np.random.Generator,
    shard: Path,
    corpus: list[Document],
    directions: DirectionSet,
    poles: list[tuple[int, int] | None],
) -> None:
    examples: list[dict[str, Any]] = []
    stats: list[dict[str, Any]] = []
    for index in range(len(directions.directions)):
        centre = float(rng.normal(0, 0.04))
        held: dict[int, list[npt.NDArray[np.float64]]] = {}
        best: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
        for doc_id, document in enumerate(corpus):
            values = _activations(rng, document, poles[index], centre)
            quantized = np.rint(values * ACTIVATION_SCALE).astype(np.int16)
            for role in sorted(set(document.roles.tolist())):
                own = np.flatnonzero(document.roles == role)
                held.setdefault(role, []).append(values[own])
                for pole, pick in ((0, np.argmax), (1, np.argmin)):
                    at = int(own[pick(values[own])])
                    sign = -1 if pole == 0 else 1
                    best.setdefault((role, pole), []).append((sign * values[at], doc_id, at))
            for key in [key for key in best if best[key][-1][1] == doc_id]:
                order, _, at = best[key][-1]
                examples.append(_example(index, key, order, doc_id, at, document, quantized))
        keep = {
            (role, pole, doc_id)
            for (role, pole), found in best.items()
            for _, doc_id, _ in sorted(found)[: 2 * TOP]
        }
        examples = [
            row
            for row in examples
            if row["direction"] != index or (row["role"], row["pole"], row["doc_id"]) in keep
        ]
        stats += [_stats(index, role, np.concatenate(parts)) for role, parts in held.items()]
    _write(shard / "examples.parquet", examples, EXAMPLES_SCHEMA)
    _write(shard / "documents.parquet", _documents(corpus), DOCUMENTS_SCHEMA)
    _write(shard / "stats.parquet", stats, STATS_SCHEMA)
    _write(shard / "reservoir.parquet", _reservoir(corpus), RESERVOIR_SCHEMA)
    _write(shard / "counts.parquet", _counts(corpus, directions.n_layers), COUNTS_SCHEMA)


def _write(path: Path, rows: list[dict[str, Any]], schema: Any) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _example(
    direction: int,
    key: tuple[int, int],
    order: float,
    doc_id: int,
    at: int,
    document: Document,
    values: npt.NDArray[np.int16],
) -> dict[str, Any]:
    low, high = max(0, at - WINDOW), min(len(document.tokens), at + WINDOW + 1)
    return {
        "direction": direction,
        "role": key[0],
        "pole": key[1],
        "value": -order if key[1] == 0 else order,
        "doc_id": doc_id,
        "text_hash": _hash(document.text),
        "position": at,
        "duplicates": 0,
        "start": low,
        "activations": values[low:high].tolist(),
    }


def _stats(direction: int, role: int, values: npt.NDArray[np.float64]) -> dict[str, Any]:
    counts, _ = np.histogram(values, bins=HISTOGRAM_BINS, range=(-1, 1))
    return {
        "direction": direction,
        "role": role,
        "n": len(values),
        "total": float(values.sum()),
        "squares": float((values**2).sum()),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "counts": counts.tolist(),
    }


def _documents(corpus: list[Document]) -> list[dict[str, Any]]:
    return [
        {
            "doc_id": index,
            "source": document.source,
            "text": document.text,
            "token_ends": document.ends.tolist(),
            "roles": document.roles.tolist(),
        }
        for index, document in enumerate(corpus)
    ]


def _reservoir(corpus: list[Document]) -> list[dict[str, Any]]:
    return [
        {
            "priority": _hash(f"{index}"),
            "text_hash": _hash(document.text),
            "doc_id": index,
            "start": 0,
            "length": len(document.tokens),
        }
        for index, document in enumerate(corpus[:60])
    ]


def _counts(corpus: list[Document], layers: int) -> list[dict[str, Any]]:
    totals: dict[tuple[str, str], int] = {("dropped", "empty"): 3, ("dropped", "malformed"): 2}
    for document in corpus:
        for what, n in (("documents", 1), ("tokens", len(document.tokens))):
            totals[what, document.source] = totals.get((what, document.source), 0) + n
        for role in document.roles.tolist():
            totals["roles", ROLES[role]] = totals.get(("roles", ROLES[role]), 0) + 1
    rows = [{"what": w, "name": name, "layer": None, "n": n} for (w, name), n in totals.items()]
    rows.append({"what": "excluded", "name": "bos", "layer": None, "n": len(corpus)})
    rows += [
        {"what": "excluded", "name": "sink", "layer": layer, "n": 7 + 5 * layer}
        for layer in range(layers)
    ]
    return rows


def _meta(
    name: str,
    title: str,
    corpus: list[Document],
    directions: DirectionSet,
    *,
    adapter: bool,
    hostile: bool,
) -> dict[str, Any]:
    kind = "adapter" if adapter else "checkpoint"
    sources = sorted({document.source for document in corpus})
    return {
        "name": name,
        "title": title,
        "model": {
            "kind": kind,
            "base": {"path": "pico/chat-base", "revision": "f" * 40},
            "tuned": {"path": f"/home/somebody/models/{name}", "revision": None},
        },
        "method": "delta",
        "d_model": WIDTH,
        "n_layers": directions.n_layers,
        "facts": {"architecture": "LlamaForCausalLM", "adapter rank": "8"}
        if adapter
        else {"architecture": MARKUP_ATTACKS[0] if hostile else "Qwen2ForCausalLM"},
        "settings": {
            "name": name,
            "directions": {"k": RANKS, "method": "delta", "random_controls": CONTROLS[0]},
            "scan": {"top": TOP, "window": WINDOW, "sink_factor": 10.0, "dtype": "float32"},
            "corpus": {"sources": [{"path": f"/home/somebody/{s}.jsonl"} for s in sources]},
            "label": {"labeler": "openai", "model": EXPLAINER},
        },
        "corpus": {
            "fingerprint": hashlib.sha256(name.encode()).hexdigest()[:16],
            "sources": [
                {"name": s, "licence": "CC0-1.0", "where": f"/home/somebody/{s}.jsonl"}
                for s in sources
            ],
            "documents": len(corpus),
            "tokens": sum(len(document.tokens) for document in corpus),
        },
        "versions": {"weightatlas": "0.1.0", "numpy": "2.4.0", "torch": "2.13.0"},
    }
