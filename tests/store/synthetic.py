"""Shards as a scan leaves them, made up: every file of SHARD_FILES, of any size, by seed.

A document's text, cluster, level and random priority follow from its number in the part alone, so
that shards cut elsewhere from one part name the same documents. Some clusters are met in many
shards. Also used by bench/merge.py, which writes many large ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builder.activations.shard_files import SHARD_FILES, length_class
from builder.records import (
    ACTIVATION_SCALE,
    HISTOGRAM_BINS,
    LEVELS,
    MODELS,
    ROLES,
    Direction,
    DirectionSet,
    Hookpoint,
    ModelRef,
)

_SPREAD = 0.05


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a shard holds."""

    directions: int = 6
    roles: tuple[int, ...] = (0, 1, 5)
    documents: int = 40
    tokens: int = 30
    top: int = 4
    length: int = 9
    tail: int = 10
    samples: int = 5
    sources: tuple[str, ...] = ("chat", "images", "code")
    with_base: bool = False
    #: Documents (of every shard) that are near-duplicates of those of all other shards.
    repeated: int = 6


def directions_of(n: int, width: int = 4) -> DirectionSet:
    """As many random directions, two to a layer."""
    rng = np.random.default_rng(n)
    vectors = rng.standard_normal((n, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = tuple(
        Direction(
            Hookpoint(at // 2, ("o_proj", "down_proj")[at % 2], f"layers.{at // 2}"),
            at // 40,
            vectors[at],
            hashlib.blake2b(b"%d" % at, digest_size=8).hexdigest(),
        )
        for at in range(n)
    )
    return DirectionSet(
        ModelRef("pico/base", "b" * 40), ModelRef("pico/tuned", "t" * 40), "delta", width,
        -(-n // 2), items,
    )  # fmt: skip


def write_shard(folder: Path, number: int, scale: Scale, seed: int = 0) -> Path:
    """Shard ``number`` of a part, in ``folder``; returns the shard's own folder."""
    rng = np.random.default_rng([seed, number])
    place = folder / f"{number:06d}-{hashlib.blake2b(b'%d %d' % (seed, number)).hexdigest()[:16]}"
    place.mkdir(parents=True)
    documents = np.arange(scale.documents, dtype=np.int64) + number * scale.documents
    tables = {
        "examples": _examples(rng, documents, scale),
        "documents": _documents(documents, scale),
        "stats": _stats(rng, scale),
        "tail": _tail(rng, documents, scale),
        "levels": _levels(rng, scale),
        "samples": _samples(rng, documents, scale, seed),
        "counts": _counts(documents, scale),
    }
    for name, table in tables.items():
        form = SHARD_FILES[f"{name}.parquet"]
        pq.write_table(pa.table(table, schema=form), place / f"{name}.parquet", compression="zstd")
    return place


def clusters_of(documents: npt.NDArray[np.int64], scale: Scale) -> npt.NDArray[np.uint64]:
    """The clusters of documents: the first few of every shard are those of the first shard's."""
    within = documents % scale.documents
    root = np.where(within < scale.repeated, within, documents).astype(np.uint64)
    return root * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)


def copies_of(shards: int, scale: Scale) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Of the clusters of these many shards, the documents that are not the first."""
    first = clusters_of(np.arange(scale.repeated), scale)
    return first, np.full(scale.repeated, shards - 1, dtype=np.int64)


def text_of(document: int, scale: Scale) -> list[str]:
    """The tokens of a document; some hold characters outside the basic plane."""
    rng = np.random.default_rng(document % scale.documents)
    picked = np.minimum(rng.zipf(1.3, scale.tokens), len(_WORDS)) - 1
    return [_WORDS[at] for at in picked]


def roles_of(document: int, scale: Scale) -> npt.NDArray[np.uint8]:
    """The roles of a document's tokens, in turns."""
    turns = np.arange(scale.tokens) * len(scale.roles) // scale.tokens
    return np.asarray(scale.roles, dtype=np.uint8)[(turns + document) % len(scale.roles)]


def source_of(documents: npt.NDArray[np.int64], scale: Scale) -> list[str]:
    """The sources of documents."""
    return [scale.sources[int(at) % len(scale.sources)] for at in documents % scale.documents]


def _words() -> list[str]:
    rng = np.random.default_rng(0)
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    words = [" the", " of", ".", "\n", " 🎉", " é", " 東"]
    for _ in range(4000):
        picked = np.minimum(rng.geometric(0.12, int(rng.integers(1, 8))), len(letters)) - 1
        words.append((" " if rng.random() < 0.7 else "") + "".join(letters[at] for at in picked))
    return words


_WORDS = _words()


def _picked(
    rng: np.random.Generator, groups: int, each: int, scale: Scale
) -> npt.NDArray[np.int64]:
    """For every group, as many distinct indices of documents."""
    first = rng.integers(scale.documents, size=(groups, 1))
    step = int(rng.choice([step for step in (1, 3, 7, 11) if np.gcd(step, scale.documents) == 1]))
    return (first + step * np.arange(each)) % scale.documents


def _extremes(
    rng: np.random.Generator, groups: int, each: int, signs: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Values of every group's rows, most extreme first; rounded, so that some are equal."""
    values = np.sort(rng.exponential(_SPREAD, (groups, each)), axis=1)[:, ::-1]
    return (np.round(np.minimum(0.2 + values, 0.99), 3) * signs[:, None]).astype(np.float32)


def _activations(rng: np.random.Generator, n: int) -> npt.NDArray[np.int16]:
    noise = rng.standard_normal(n, dtype=np.float32)
    return (noise * np.float32(_SPREAD * ACTIVATION_SCALE)).astype(np.int16)


def _in_lists(values: npt.NDArray[Any], length: int) -> pa.Array:
    offsets = np.arange(0, len(values) + 1, length, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, values)


def _or_null(values: pa.Array, n: int, *, known: bool) -> pa.Array:
    return values if known else pa.nulls(n, pa.list_(pa.int16()))


def _examples(
    rng: np.random.Generator, documents: npt.NDArray[np.int64], scale: Scale
) -> dict[str, Any]:
    keys = np.asarray(
        [(d, r, p) for d in range(scale.directions) for r in scale.roles for p in (0, 1)]
    )
    each = scale.top
    at = _picked(rng, len(keys), each, scale).ravel()
    n = len(at)
    position = rng.integers(scale.tokens, size=n)
    start = np.clip(position - scale.length // 2, 0, scale.tokens - scale.length)
    values = _extremes(rng, len(keys), each, 1 - 2 * keys[:, 2]).ravel()
    prefix = rng.integers(1, 2**63, size=n).astype(np.uint64)
    # Every shard's third of a list is the same up to the peak; its value differs by rounding.
    alike = np.arange(min(2, each - 1), n, each)
    prefix[alike] = np.arange(len(keys), dtype=np.uint64)
    poles = 1 - 2 * keys[:, 2]
    values[alike] = (poles * (0.8 + 1e-6 * rng.random(len(keys)))).astype(np.float32)
    quantized = _activations(rng, n * scale.length).reshape(n, scale.length)
    quantized[np.arange(n), position - start] = np.round(values * ACTIVATION_SCALE)
    base = _in_lists(_activations(rng, n * scale.length), scale.length) if scale.with_base else None
    names = ("direction", "role", "pole")
    return {
        **{name: np.repeat(keys[:, column], each) for column, name in enumerate(names)},
        "value": values,
        "doc_id": documents[at],
        "cluster": clusters_of(documents[at], scale),
        "prefix": prefix,
        "piece": _piece(start, scale),
        "position": position,
        "start": start,
        "activations": _in_lists(quantized.ravel(), scale.length),
        "base_activations": _or_null(base, n, known=scale.with_base),
    }


def _piece(start: npt.NDArray[np.int64], scale: Scale) -> npt.NDArray[np.int64]:
    """Documents have two pieces, the second from their middle on, with the first whole."""
    return (start >= scale.tokens // 2).astype(np.int64)


def _documents(documents: npt.NDArray[np.int64], scale: Scale) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    half = scale.tokens // 2
    for document, source in zip(documents.tolist(), source_of(documents, scale), strict=True):
        tokens, roles = text_of(document, scale), roles_of(document, scale)
        for piece, first in ((0, 0), (1, half)):
            own = tokens[first:]
            rows.append(
                {
                    "doc_id": document,
                    "piece": piece,
                    "first": first,
                    "source": source,
                    "text": "".join(own),
                    "token_ends": np.cumsum([len(token) for token in own]),
                    "roles": roles[first:],
                }
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def _stats(rng: np.random.Generator, scale: Scale) -> dict[str, Any]:
    models = range(len(MODELS) if scale.with_base else 1)
    keys = np.asarray(
        [(d, r, m) for d in range(scale.directions) for r in scale.roles for m in models]
    )
    tokens = scale.documents * scale.tokens
    edges = np.linspace(-1, 1, HISTOGRAM_BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    shares = np.exp(-0.5 * (centres / _SPREAD) ** 2)
    counts = rng.multinomial(tokens // len(scale.roles), shares / shares.sum(), size=len(keys))
    used = counts > 0
    names = ("direction", "role", "model")
    return {
        **{name: keys[:, column] for column, name in enumerate(names)},
        "n": counts.sum(axis=1),
        "total": counts @ centres,
        "squares": counts @ centres**2,
        "minimum": centres[used.argmax(axis=1)].astype(np.float32),
        "maximum": centres[::-1][used[:, ::-1].argmax(axis=1)].astype(np.float32),
        "counts": pa.FixedSizeListArray.from_arrays(counts.ravel(), HISTOGRAM_BINS),
    }


def _tail(
    rng: np.random.Generator, documents: npt.NDArray[np.int64], scale: Scale
) -> dict[str, Any]:
    keys = np.asarray([(d, p) for d in range(scale.directions) for p in (0, 1)])
    each = min(scale.tail, scale.documents)
    at = _picked(rng, len(keys), each, scale).ravel()
    # What is of one cluster is the first of it in its run, the same text, and has the same value.
    mixed = clusters_of(documents[at], scale) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.repeat(np.arange(len(keys)), each).astype(np.uint64) << np.uint64(40)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    values = 0.2 + 0.7 * (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
    return {
        "direction": np.repeat(keys[:, 0], each),
        "pole": np.repeat(keys[:, 1], each),
        "value": (values * np.repeat(1 - 2 * keys[:, 1], each)).astype(np.float32),
        "doc_id": documents[at],
        "cluster": clusters_of(documents[at], scale),
        "source": pa.array(source_of(documents[at], scale)).dictionary_encode(),
    }


def _levels(rng: np.random.Generator, scale: Scale) -> dict[str, Any]:
    keys = np.asarray([(d, level) for d in range(scale.directions) for level in range(LEVELS)])
    high = 0.2 + rng.exponential(_SPREAD, len(keys))
    return {
        "direction": keys[:, 0],
        "level": keys[:, 1],
        "minimum": -high.astype(np.float32) / 2,
        "maximum": np.minimum(high, 1).astype(np.float32),
    }


def _samples(
    rng: np.random.Generator, documents: npt.NDArray[np.int64], scale: Scale, seed: int
) -> dict[str, Any]:
    chosen = documents[: scale.samples]
    n, length = len(chosen), scale.length
    start = rng.integers(scale.tokens - length + 1, size=n)
    values = [_activations(rng, length * scale.directions) for _ in range(n)]
    base = [_activations(rng, length * scale.directions) for _ in range(n)]
    random = [hashlib.blake2b(b"%d %d" % (seed, document)).digest() for document in chosen.tolist()]
    return {
        "priority": np.asarray([int.from_bytes(part[:8], "little") for part in random], np.uint64),
        "doc_id": chosen,
        "cluster": clusters_of(chosen, scale),
        "piece": _piece(start, scale),
        "start": start,
        "length": np.full(n, length),
        "activations": values,
        "base_activations": _or_null(pa.array(base), n, known=scale.with_base),
    }


def _counts(documents: npt.NDArray[np.int64], scale: Scale) -> dict[str, Any]:
    found: Counter[tuple[str, str]] = Counter()
    for document, source in zip(documents.tolist(), source_of(documents, scale), strict=True):
        found["documents", source] += 1
        found["tokens", source] += scale.tokens
        level = (document & -document).bit_length() - 1 if document else LEVELS
        found["levels", str(min(level, LEVELS - 1))] += 1
        # The first documents of a shard have been seen in the first one.
        if document < scale.documents or document % scale.documents >= scale.repeated:
            found["distinct", source] += 1
            found["length", f"{length_class(scale.tokens)} {source}"] += 1
        for role in roles_of(document, scale).tolist():
            found["roles", ROLES[role]] += 1
    keys = sorted(found)
    return {
        "what": [what for what, _ in keys],
        "name": [name for _, name in keys],
        "layer": pa.nulls(len(keys), pa.int32()),
        "n": [found[key] for key in keys],
    }
