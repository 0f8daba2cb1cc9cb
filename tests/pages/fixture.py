"""Run folders as a scan leaves them, made up in seconds: no model, only the files and the store.

Directions are random unit vectors; what they answer to is decided here (a theme at each pole), and
activations are drawn around that. Everything is seeded: the same call makes the same run.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builder.activations.shard_files import SHARD_FILES
from builder.config import ScanSettings
from builder.labels import by_hand, similar
from builder.records import (
    ACTIVATION_SCALE,
    CONTENT_ROLES,
    HISTOGRAM_BINS,
    LEVELS,
    MODELS,
    ROLES,
    DirectionSet,
)
from builder.store import RunStore, Shard, write_database
from builder.weights.direction_file import save_directions
from tests.pages.conversations import Document, fixture_corpus, placed_corpus
from tests.pages.directed import CONTROLS, WIDTH, fixture_directions, middle, with_tokens
from tests.pages.labelled import EXPLAINER, fixture_labels, placed_labels
from tests.pages.scored import hand_label, write_scores
from tests.pages.texts import MARKUP_ATTACKS, THEMES

LAYERS, RANKS, TOP, WINDOW, TAIL = 4, 5, 20, 48, 12


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
    with_base: bool = False,
    scored: bool = True,
    payloads: Sequence[str] = (),
) -> Path:
    """A run folder with a database, as a scan and a labeler would leave it; returns ``folder``.

    ``with_base``: as if the base had been scanned as well; without ``scored`` there are neither
    scores nor labels by hand. ``payloads`` stand, one at each pole in turn, in place of documents,
    tokens, sources and labels.
    """
    rng = np.random.default_rng(seed)
    directions = fixture_directions(rng, name, layers, ranks, hostile=hostile, adapter=adapter)
    if payloads:
        directions = with_tokens(directions, payloads)
    corpus = (
        placed_corpus(payloads) if payloads else fixture_corpus(rng, documents, hostile=hostile)
    )
    shard = folder / "shards" / "000000"
    shard.mkdir(parents=True)
    save_directions(folder / "directions.safetensors", directions)
    poles = _poles(rng, directions)
    _write_shard(rng, shard, corpus, directions, poles, with_base=with_base)
    copies = Counter(_hash(document.text) for document in corpus)
    write_database(
        folder / "run.duckdb",
        directions,
        [Shard(shard)],
        settings=ScanSettings(top=TOP, tail=TAIL, reservoir=40, held_out=20, quantiles=3),
        clusters=(
            np.asarray(list(copies), dtype=np.uint64),
            np.asarray(list(copies.values()), dtype=np.int64) - 1,
        ),
        meta=_meta(name, title, corpus, directions, adapter=adapter, hostile=hostile),
        counts=[("noted", "cut at max_tokens", 4)],
    )
    with RunStore(folder / "run.duckdb", read_only=False) as store:
        store.replace_labels(
            placed_labels(directions, payloads)
            if payloads
            else fixture_labels(rng, directions, poles, hostile=hostile)
        )
    if scored:
        _score(folder, directions, hostile=hostile)
    return folder


def _score(folder: Path, directions: DirectionSet, *, hostile: bool) -> None:
    """Adds what comes after labels: one by hand, similar labels, scores, and what all cost."""
    with RunStore(folder / "run.duckdb") as store:
        labelled = {label.direction for label in store.labels() if label.pole == "min"}
    own = [item for item in directions.directions if item.kind == "delta" and item.id in labelled]
    weakest = min(own, key=lambda item: item.sigma).id
    (folder / by_hand.FILE).write_text(hand_label(weakest, "min"), encoding="utf-8")
    by_hand.refresh(folder, folder / "run.duckdb")
    similar.refresh(folder / "run.duckdb")
    with RunStore(folder / "run.duckdb", read_only=False) as store:
        write_scores(np.random.default_rng(7), store, hostile=hostile)


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
    *,
    with_base: bool,
) -> None:
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in SHARD_FILES}
    samples: list[list[npt.NDArray[np.int16]]] = [[] for _ in corpus]
    base_samples: list[list[npt.NDArray[np.int16]]] = [[] for _ in corpus]
    # Bases are drawn apart, so that a run with its base is otherwise that without.
    apart = np.random.default_rng(1)
    for index in range(len(directions.directions)):
        centre = float(rng.normal(0, 0.04))
        values = [
            _activations(rng, document, None if document.peak else poles[index], centre)
            for document in corpus
        ]
        base = [_activations(apart, document, None, centre) for document in corpus]
        for document, own in zip(corpus, values, strict=True):
            if document.peak and document.peak[0] // 2 == index:
                own[document.peak[1]] = -0.9 if document.peak[0] % 2 else 0.9
        for at, (own, other) in enumerate(zip(values, base, strict=True)):
            samples[at].append(_quantized(own))
            base_samples[at].append(_quantized(other))
        tables["examples.parquet"] += _examples(index, corpus, values, base if with_base else None)
        tables["tail.parquet"] += _tail(index, corpus, values)
        tables["levels.parquet"] += _levels(index, corpus, values)
        measured = [values, base, [own - other for own, other in zip(values, base, strict=True)]]
        for model in range(len(MODELS) if with_base else 1):
            tables["stats.parquet"] += _stats(index, model, corpus, measured[model])
    tables["documents.parquet"] = _documents(corpus)
    tables["samples.parquet"] = _samples(corpus, samples, base_samples if with_base else None)
    tables["counts.parquet"] = _counts(corpus, directions.n_layers)
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows, schema=SHARD_FILES[name]), shard / name)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _quantized(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    return np.rint(values * ACTIVATION_SCALE).astype(np.int16)


def _is_first(corpus: list[Document]) -> list[bool]:
    """Whether a document is the first of its text."""
    seen: dict[str, int] = {}
    return [seen.setdefault(document.text, index) == index for index, document in enumerate(corpus)]


def _content(document: Document) -> npt.NDArray[np.int64]:
    return np.flatnonzero(document.roles < len(CONTENT_ROLES))


Values = list[npt.NDArray[np.float64]]


def _examples(
    direction: int, corpus: list[Document], values: Values, base: Values | None
) -> list[dict[str, Any]]:
    """Per role and pole the best documents, one of each text."""
    found = []
    for role in sorted({role for document in corpus for role in document.roles.tolist()}):
        for pole, (pick, sign) in enumerate(((np.argmax, -1), (np.argmin, 1))):
            best: dict[str, tuple[float, int, int]] = {}
            for doc_id, document in enumerate(corpus):
                own = np.flatnonzero(document.roles == role)
                if len(own):
                    at = int(own[pick(values[doc_id][own])])
                    row = (sign * float(values[doc_id][at]), doc_id, at)
                    best[document.text] = min(row, best.get(document.text, row))
            for order, doc_id, at in sorted(best.values())[:TOP]:
                low = max(0, at - WINDOW)
                window = slice(low, min(len(values[doc_id]), at + WINDOW + 1))
                found.append(
                    {
                        "direction": direction,
                        "role": role,
                        "pole": pole,
                        "value": sign * order,
                        "doc_id": doc_id,
                        "cluster": _hash(corpus[doc_id].text),
                        "prefix": _hash(corpus[doc_id].text),
                        "piece": 0,
                        "position": at,
                        "start": low,
                        "activations": _quantized(values[doc_id][window]).tolist(),
                        "base_activations": _quantized(base[doc_id][window]).tolist()
                        if base
                        else None,
                    }
                )
    return found


def _tail(direction: int, corpus: list[Document], values: Values) -> list[dict[str, Any]]:
    firsts = [index for index, first in enumerate(_is_first(corpus)) if first]
    found = []
    for pole, (pick, sign) in enumerate(((np.max, -1), (np.min, 1))):
        rows = sorted((sign * float(pick(values[at][_content(corpus[at])])), at) for at in firsts)
        found += [
            {
                "direction": direction,
                "pole": pole,
                "value": sign * order,
                "doc_id": at,
                "cluster": _hash(corpus[at].text),
                "source": corpus[at].source,
            }
            for order, at in rows[:TAIL]
        ]
    return found


def _level(document: int) -> int:
    """Half of the documents are in level 0, a quarter in level 1."""
    return min(((document + 1) & -(document + 1)).bit_length() - 1, LEVELS - 1)


def _levels(direction: int, corpus: list[Document], values: Values) -> list[dict[str, Any]]:
    held: dict[int, list[npt.NDArray[np.float64]]] = {}
    for index, document in enumerate(corpus):
        held.setdefault(_level(index), []).append(values[index][_content(document)])
    return [
        {
            "direction": direction,
            "level": level,
            "minimum": min(float(own.min()) for own in parts),
            "maximum": max(float(own.max()) for own in parts),
        }
        for level, parts in held.items()
    ]


def _stats(
    direction: int, model: int, corpus: list[Document], values: Values
) -> list[dict[str, Any]]:
    held: dict[int, list[npt.NDArray[np.float64]]] = {}
    for document, own in zip(corpus, values, strict=True):
        for role in sorted(set(document.roles.tolist())):
            held.setdefault(role, []).append(own[document.roles == role])
    rows = []
    for role, parts in held.items():
        every = np.concatenate(parts)
        counts, _ = np.histogram(every, bins=HISTOGRAM_BINS, range=(-1, 1))
        rows.append(
            {
                "direction": direction,
                "role": role,
                "model": model,
                "n": len(every),
                "total": float(every.sum()),
                "squares": float((every**2).sum()),
                "minimum": float(every.min()),
                "maximum": float(every.max()),
                "counts": counts.tolist(),
            }
        )
    return rows


def _documents(corpus: list[Document]) -> list[dict[str, Any]]:
    return [
        {
            "doc_id": index,
            "piece": 0,
            "first": 0,
            "source": document.source,
            "text": document.text,
            "token_ends": document.ends.tolist(),
            "roles": document.roles.tolist(),
        }
        for index, document in enumerate(corpus)
    ]


def _samples(
    corpus: list[Document],
    values: list[list[npt.NDArray[np.int16]]],
    base: list[list[npt.NDArray[np.int16]]] | None,
) -> list[dict[str, Any]]:
    return [
        {
            "priority": _hash(f"{index}"),
            "doc_id": index,
            "cluster": _hash(document.text),
            "piece": 0,
            "start": 0,
            "length": len(document.tokens),
            "activations": np.concatenate(values[index]).tolist(),
            "base_activations": np.concatenate(base[index]).tolist() if base else None,
        }
        for index, document in enumerate(corpus[:60])
    ]


def _counts(corpus: list[Document], layers: int) -> list[dict[str, Any]]:
    totals: dict[tuple[str, str], int] = {("dropped", "empty"): 3, ("dropped", "malformed"): 2}
    for index, (document, first) in enumerate(zip(corpus, _is_first(corpus), strict=True)):
        for what, name, n in (
            ("documents", document.source, 1),
            ("tokens", document.source, len(document.tokens)),
            ("distinct", document.source, int(first)),
            ("levels", str(_level(index)), 1),
            *(("roles", ROLES[role], 1) for role in document.roles.tolist()),
        ):
            totals[what, name] = totals.get((what, name), 0) + n
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
