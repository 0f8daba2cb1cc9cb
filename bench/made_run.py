"""A run's database of any number of directions, made up without a model: for bench/site.py.

Texts are words of a made-up language whose frequencies fall as in a real one (Zipf), cut into
tokens of about four characters, so that they compress much as real text does. Activations are
noise around a direction's mean with a peak, labels are sentences of these words, and every label
is scored with all judged texts. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.records import (
    ACTIVATION_SCALE,
    HISTOGRAM_BINS,
    POLES,
    STRATA,
    Judged,
    Label,
    Score,
    Similar,
)
from builder.store import RunStore
from builder.store.schema import SCHEMA, SCHEMA_VERSION, connect, insert_table

SOURCES = ("web chat", "image prompts", "code", "encyclopedia", "forum", "stories")
#: Roles of the made-up conversations, by their index in ROLES: user, assistant, template.
ROLE_IDS = (0, 1, 5)
TOKENS, PEAK = 128, 64
WRITERS = ("o_proj", "down_proj")
RANKS = 20
#: Directions written at once.
_AT_ONCE = 100


class Language:
    """Words and texts of a made-up language."""

    def __init__(self, seed: int, words: int = 12_000) -> None:
        rng = np.random.default_rng([seed, 1])
        heads = [*"bcdfghjklmnprstvw", "st", "tr", "pl", "ch", "sh"]
        bodies = ["a", "e", "i", "o", "u", "ea", "ou"]
        tails = ["n", "r", "s", "t", "l", "m", "lk", "ck", *[""] * 6]
        made: dict[str, None] = {}
        while len(made) < words:
            parts = rng.choice([1, 2, 2, 3, 3, 4], size=1)[0]
            made.setdefault(
                "".join(
                    heads[rng.integers(len(heads))] + bodies[rng.integers(len(bodies))]
                    + tails[rng.integers(len(tails))]
                    for _ in range(parts)
                )
            )  # fmt: skip
        # Frequent words are short, as in every language.
        self.words = sorted(made, key=lambda word: len(word) + rng.normal(0, 1.5))
        self._weights = 1 / (np.arange(words) + 2.7) ** 1.08
        self._weights /= self._weights.sum()

    def said(self, rng: np.random.Generator, n: int) -> list[str]:
        """``n`` words."""
        return [self.words[at] for at in rng.choice(len(self.words), n, p=self._weights)]

    def window(self, rng: np.random.Generator) -> tuple[str, npt.NDArray[np.uint32]]:
        """The text of TOKENS tokens and their lengths."""
        tokens: list[str] = []
        for word in self.said(rng, TOKENS):
            if rng.random() < 0.12:
                tokens.append(",.!?\n"[rng.integers(5)])
            text = " " + word
            tokens += [text[at : at + 5] for at in range(0, len(text), 5)]
        tokens = tokens[:TOKENS]
        return "".join(tokens), np.asarray([len(token) for token in tokens], dtype=np.uint32)


def make_database(path: Path, directions: int, *, top: int = 20, with_base: bool = False,
                  scored: bool = True, seed: int = 0, texts: int = 4000) -> None:  # fmt: skip
    """Writes ``path`` with ``top`` examples at each pole of so many directions."""
    rng = np.random.default_rng([seed, 2])
    language = Language(seed)
    windows = [language.window(rng) for _ in range(texts)]
    roles = _roles(rng, texts)
    pool = {
        "text": pa.array([text for text, _ in windows]),
        "token_lengths": pa.array([lengths for _, lengths in windows], pa.list_(pa.uint32())),
        "roles": pa.array(list(roles), pa.list_(pa.uint8())),
        "source": pa.array([SOURCES[at] for at in rng.integers(len(SOURCES), size=texts)]),
    }
    path.unlink(missing_ok=True)
    with connect(path, read_only=False) as connection:
        connection.execute(SCHEMA)
        _put(connection, "meta", _meta(directions))
        _put(connection, "directions", _directions(rng, language, directions))
        _put(connection, "spectra", _spectra(rng, directions))
        _put(connection, "counts", _counts())
        _reservoir(connection, pool, texts)
        for first in range(0, directions, _AT_ONCE):
            own = range(first, min(directions, first + _AT_ONCE))
            _examples(connection, rng, own, top, pool, roles, with_base=with_base)
            _statistics(connection, rng, own, with_base=with_base)
            _quantiles(connection, rng, own, texts, with_base=with_base)
    with RunStore(path, read_only=False) as store:
        _label(store, rng, language, top, scored=scored)


def _put(connection: Any, table: str, columns: dict[str, Any]) -> None:
    form = connection.sql(f"SELECT * FROM {table} LIMIT 0").to_arrow_table().schema
    arrays = [
        column.cast(form.field(name).type)
        if isinstance(column, (pa.Array, pa.ChunkedArray))
        else pa.array(column, form.field(name).type)
        for name, column in columns.items()
    ]
    insert_table(connection, table, pa.table(arrays, names=list(columns)))


def _meta(directions: int) -> dict[str, Any]:
    import json

    values = {
        "schema_version": SCHEMA_VERSION,
        "name": "made",
        "title": "Made-up tune",
        "model": {"kind": "checkpoint", "base": {"path": "pico/base", "revision": "f" * 40},
                  "tuned": {"path": "pico/tuned", "revision": "e" * 40}},
        "method": "delta",
        "d_model": 4096,
        "n_layers": max(layer for layer, _, _ in places_of(directions)) + 1,
        "facts": {"architecture": "LlamaForCausalLM"},
        "settings": {"name": "made"},
        "corpus": {"fingerprint": "0" * 16,
                   "sources": [{"name": name, "licence": "CC0-1.0"} for name in SOURCES]},
        "versions": {"weightatlas": "made"},
    }  # fmt: skip
    return {"key": list(values), "value": [json.dumps(value) for value in values.values()]}


def places_of(n: int) -> list[tuple[int, str, int]]:
    """(layer, writer, rank) of ``n`` directions; one in twenty is a random control."""
    controls = n // 20
    own = [(*divmod(at, len(WRITERS) * RANKS),) for at in range(n - controls)]
    layers = own[-1][0] + 1
    return [(layer, WRITERS[rest // RANKS], rest % RANKS) for layer, rest in own] + [
        (at % layers, "random", at // layers) for at in range(controls)
    ]


def _name(place: tuple[int, str, int]) -> str:
    layer, writer, rank = place
    return f"L{layer:02d}.{writer}.u{rank:02d}"


def _directions(rng: np.random.Generator, language: Language, n: int) -> dict[str, Any]:
    places = places_of(n)
    names = [_name(place) for place in places]
    sigma = [
        None if writer == "random" else float(4 * 0.9**rank * rng.uniform(0.8, 1.2))
        for _, writer, rank in places
    ]
    lens = [
        [{"token": " " + word, "logit": float(12 - at / 2)} for at, word in
         enumerate(language.said(rng, 12))]
        for _ in range(2 * n)
    ]  # fmt: skip
    return {
        "direction": list(range(n)),
        "id": names,
        "content_hash": [f"{at:016x}" for at in range(n)],
        "layer": [layer for layer, _, _ in places],
        "writer": [writer for _, writer, _ in places],
        "module": [f"model.layers.{layer}.mlp.{writer}" for layer, writer, _ in places],
        "rank": [rank for _, _, rank in places],
        "kind": ["control" if writer == "random" else "delta" for _, writer, _ in places],
        "sigma": sigma,
        "energy": [value**2 / 400 if value else None for value in sigma],
        "residual": [1e-6 if value else None for value in sigma],
        "promoted": lens[:n],
        "suppressed": lens[n:],
        "gap": [0.05] * n,
        "group_ranks": [[] for _ in range(n)],
        "reads": [[{"source": f"neuron {neuron}", "share": 0.1 / (at + 1)} for at, neuron in
                   enumerate(rng.integers(14_000, size=5))] for _ in range(n)],
        "neighbours": [[{"id": names[int(other)], "cosine": 0.4 - at / 20} for at, other in
                        enumerate(rng.integers(n, size=5))] for _ in range(n)],
    }  # fmt: skip


def _spectra(rng: np.random.Generator, n: int) -> dict[str, Any]:
    places = sorted({place[:2] for place in places_of(n) if place[1] in WRITERS})
    m = len(places)
    return {
        "layer": [layer for layer, _ in places], "matrix": [writer for _, writer in places],
        "module": ["m"] * m, "d_out": [4096] * m, "d_in": [4096] * m, "side": ["left"] * m,
        "space": ["neurons"] * m, "frobenius": [20.0] * m, "stable_rank": [9.0] * m,
        "sigmas": [(4 * 0.9 ** np.arange(64) * rng.uniform(0.9, 1.1)).tolist() for _ in places],
        "is_full": [False] * m, "entropy": [None] * m, "concentration": [None] * m,
        "effective_rank": [None] * m, "shuffled_floor": [0.4] * m, "rounding_floor": [0.01] * m,
    }  # fmt: skip


def _counts() -> dict[str, Any]:
    rows = [(what, name, 100_000 * (at + 1)) for what in ("documents", "tokens", "distinct")
            for at, name in enumerate(SOURCES)]  # fmt: skip
    rows += [("roles", role, 4_000_000) for role in ("user", "assistant", "template")]
    return {"what": [row[0] for row in rows], "name": [row[1] for row in rows],
            "layer": [None] * len(rows), "n": [row[2] for row in rows]}  # fmt: skip


def _roles(rng: np.random.Generator, n: int) -> npt.NDArray[np.uint8]:
    """A turn of the user, a few tokens of template, a turn of the assistant."""
    turn = rng.integers(10, TOKENS - 10, size=n)[:, None]
    at = np.arange(TOKENS)[None, :]
    found = np.where(at < turn, ROLE_IDS[0], np.where(at < turn + 4, ROLE_IDS[2], ROLE_IDS[1]))
    return found.astype(np.uint8)


def _noise(
    rng: np.random.Generator, rows: int, centre: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    noise = rng.standard_normal((rows, TOKENS)) * 0.05
    noise[:, 1:] += 0.4 * noise[:, :-1]
    noise += centre
    return noise


def _stored(values: npt.NDArray[np.float64]) -> pa.Array:
    whole = np.rint(np.clip(values, -1, 1) * ACTIVATION_SCALE).astype(np.int16)
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.ravel()), TOKENS).cast(
        pa.list_(pa.int16())
    )


def _examples(
    connection: Any,
    rng: np.random.Generator,
    own: Sequence[int],
    top: int,
    pool: dict[str, pa.Array],
    roles: npt.NDArray[np.uint8],
    *,
    with_base: bool,
) -> None:
    n = len(own) * len(POLES) * top
    texts = len(pool["text"])
    picked = np.concatenate([rng.choice(texts, len(POLES) * top, replace=False) for _ in own])
    at = np.tile(np.arange(top), len(own) * len(POLES))
    pole = np.tile(np.repeat(np.arange(len(POLES)), top), len(own))
    centre = np.repeat(rng.normal(0, 0.03, len(own)), len(POLES) * top)[:, None]
    values = _noise(rng, n, centre)
    sign = np.where(pole == 0, 1.0, -1.0)
    peak = sign * (0.55 - 0.01 * at) + centre[:, 0]
    values = np.clip(values, centre - 0.3, centre + 0.3)
    values[:, PEAK] = peak
    role = roles[picked, PEAK]
    # Places within a role's own list follow those of the joint one.
    order = np.lexsort((at, role, pole, np.repeat(np.arange(len(own)), len(POLES) * top)))
    place = np.zeros(n, dtype=np.int64)
    last, count = None, 0
    for row in order:
        key = (row // (len(POLES) * top), pole[row], role[row])
        count = count + 1 if key == last else 0
        place[row], last = count, key
    # A template token's list is its own; the joint one holds written text alone.
    columns = {name: column.take(pa.array(picked)) for name, column in pool.items()}
    _put(connection, "examples", {
        "direction": np.repeat(np.asarray(own), len(POLES) * top), "role": role, "pole": pole,
        "place": place, "any_place": at, "value": peak, "doc_id": picked,
        "start": np.zeros(n, dtype=np.int64), "peak": np.full(n, PEAK),
        "duplicates": rng.integers(0, 2, size=n), "repeats": np.zeros(n, dtype=np.int64),
        "activations": _stored(values),
        "base_activations": _stored(_noise(rng, n, centre)) if with_base else [None] * n,
        **columns,
    })  # fmt: skip


def _statistics(
    connection: Any, rng: np.random.Generator, own: Sequence[int], *, with_base: bool
) -> None:
    models = 3 if with_base else 1
    keys = [(d, role, model) for d in own for model in range(models) for role in ROLE_IDS]
    edges = np.linspace(-1, 1, HISTOGRAM_BINS + 1)[:-1]
    bell = np.exp(-0.5 * (edges / 0.05) ** 2) * 1e6
    counts = rng.poisson(bell[None, :] + 0.02 * (np.abs(edges) < 0.6), (len(keys), HISTOGRAM_BINS))
    columns = {"direction": [k[0] for k in keys], "role": [k[1] for k in keys],
               "model": [k[2] for k in keys]}  # fmt: skip
    _put(connection, "histograms", {**columns, "counts": list(counts)})
    m = len(keys)
    _put(connection, "ranges", {
        **columns, "n": counts.sum(1), "minimum": rng.uniform(-0.6, -0.5, m),
        "maximum": rng.uniform(0.5, 0.6, m), "mean": rng.normal(0, 0.01, m), "std": [0.05] * m,
    })  # fmt: skip
    if with_base:
        pairs = [(d, role) for d in own for role in ROLE_IDS]
        _put(connection, "shifts", {
            "direction": [p[0] for p in pairs], "role": [p[1] for p in pairs],
            "n": [4_000_000] * len(pairs), "mean": rng.normal(0, 0.01, len(pairs)),
            "std": [0.03] * len(pairs), "outside": rng.uniform(0, 1e-4, len(pairs)),
        })  # fmt: skip
    tails = [(d, pole, at) for d in own for pole in range(2) for at in range(len(SOURCES))]
    _put(connection, "sources", {
        "direction": [t[0] for t in tails], "pole": [t[1] for t in tails],
        "source": [SOURCES[t[2]] for t in tails], "n": rng.integers(1, 30, len(tails)),
        "tail": [100] * len(tails), "documents": [100_000 * (t[2] + 1) for t in tails],
        "all_documents": [2_100_000] * len(tails), "p_value": rng.uniform(0, 1, len(tails)),
        "q_value": rng.uniform(0, 1, len(tails)),
    })  # fmt: skip
    grown = [(d, pole) for d in own for pole in range(2)]
    _put(connection, "saturation", {
        "direction": [g[0] for g in grown], "pole": [g[1] for g in grown],
        "documents": [[2**level * 4000 for level in range(10)]] * len(grown),
        "extremes": [(np.sort(rng.uniform(0.2, 0.6, 10)) * (1 if g[1] == 0 else -1)).tolist()
                     for g in grown],
        "gain": [0.1] * len(grown),
    })  # fmt: skip


def _reservoir(connection: Any, pool: dict[str, pa.Array], texts: int) -> None:
    n = min(texts, 600)
    _put(connection, "reservoir", {
        "place": list(range(n)), "split": ["reservoir"] * (n - n // 3) + ["held_out"] * (n // 3),
        "doc_id": [1_000_000 + at for at in range(n)], "start": [0] * n, "duplicates": [0] * n,
        **{name: column.slice(0, n) for name, column in pool.items()},
    })  # fmt: skip


def _quantiles(connection: Any, rng: np.random.Generator, own: Sequence[int], texts: int, *,
               with_base: bool) -> None:  # fmt: skip
    rows = [(d, pole, place) for d in own for pole in range(2) for place in range(5)]
    n = len(rows)
    values = _noise(rng, n, np.zeros((n, 1)))
    _put(connection, "quantile_examples", {
        "direction": [r[0] for r in rows], "pole": [r[1] for r in rows],
        "place": [r[2] for r in rows], "sample": rng.integers(0, min(texts, 600) * 2 // 3, n),
        "value": values[:, PEAK], "peak": [PEAK] * n, "activations": _stored(values),
        "base_activations": _stored(values) if with_base else [None] * n,
    })  # fmt: skip


def _label(
    store: RunStore, rng: np.random.Generator, language: Language, top: int, *, scored: bool
) -> None:
    ids = [row.id for row in store.directions()]
    labels = []
    for at in ids:
        for pole in POLES:
            words = language.said(rng, int(rng.integers(4, 12)))
            labels.append(
                Label(at, pole, "example-8b", " ".join(words),
                      explanation=" ".join(language.said(rng, 30)),
                      keywords=tuple(language.said(rng, 5)), kind="topic", confidence=0.8,
                      prompt_hash="ab" * 32, example_docs=tuple(range(0, top, 2)),
                      prompt_tokens=2000, completion_tokens=120, cost=0.001, created="2026-01-01")
            )  # fmt: skip
    store.replace_labels(labels)
    store.replace_similar(
        Similar(label.direction, label.pole, ids[int(rng.integers(len(ids)))], "max",
                0.9 - 0.1 * place, "words")
        for label in labels for place in range(3)
    )  # fmt: skip
    if scored:
        lists: dict[tuple[str, str], list[int]] = {}
        for first in range(0, len(ids), 64):
            for direction, held in store.examples_of(ids[first : first + 64], role="any").items():
                for example in held:
                    lists.setdefault((direction, example.pole), []).append(example.window.doc_id)
        store.replace_scores(
            "example-8b",
            (_score(rng, label, scorer, lists, top)
             for label in labels for scorer in ("detection", "fuzzing")),
        )  # fmt: skip


def _score(
    rng: np.random.Generator,
    label: Label,
    scorer: Any,
    lists: dict[tuple[str, str], list[int]],
    top: int,
) -> Score:
    judged = []
    for stratum in STRATA:
        if stratum in ("pole", "other"):
            pole = label.pole if stratum == "pole" else POLES[1 - POLES.index(label.pole)]
            documents = lists[label.direction, pole]
            found = [(place, documents[place]) for place in range(1, top, 2)]
        else:
            found = [(int(place), 1_000_000 + 400 + int(place)) for place in
                     rng.choice(200, 20, replace=False)]  # fmt: skip
        truth = stratum == "pole"
        judged += [
            Judged(stratum, place, doc_id, truth,
                   float(truth if rng.random() < 0.93 else not truth), 1.0, 0, TOKENS,
                   (PEAK,) if scorer == "fuzzing" else ())
            for place, doc_id in found
        ]  # fmt: skip
    f1 = float(rng.uniform(0.3, 1.0))
    return Score(
        label.direction, label.pole, label.labeler, scorer, "example-70b", label.text or "",
        f1=f1, auprc=f1, f1_interval=(f1 - 0.1, min(1.0, f1 + 0.1)),
        auprc_interval=(f1 - 0.1, min(1.0, f1 + 0.1)), chance=(0.0, 0.2), base_rate=0.005,
        between=0.02, n_positive=10, n_negative=50, unparsed=0, faults={},
        prompt_tokens=3000, completion_tokens=300, cost=0.001, judged=tuple(judged),
    )  # fmt: skip
