"""Scanned run folders without a model: the corpus is frozen as ever, activations are made up.

An activation follows from the text up to its token alone, as those of a model do. Shards are
written as a scan writes them, so that everything from the merge on can be tried in a moment.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from builder.activations.corpus import Document, read_checked, slice_documents
from builder.activations.shard_files import SHARD_FILES
from builder.config import CorpusSettings, ModelSettings, ScanSettings, Settings, Source
from builder.corpus_stage import freeze_corpus
from builder.execute import Unit
from builder.merge_stage import merge_shards
from builder.records import ACTIVATION_SCALE, HISTOGRAM_BINS, LEVELS
from builder.run_folder import Run, checked_run, claimed, digest_of
from builder.weights.direction_file import save_directions
from tests.store.synthetic import directions_of

DIRECTIONS = 4
_TEXT = 4  # the role of plain documents
SCAN: dict[str, Any] = {
    "top": 4, "tail": 8, "reservoir": 7, "held_out": 3, "quantiles": 2, "shard_documents": 9,
}  # fmt: skip


def write_texts(path: Path, texts: list[str]) -> Source:
    """A source of plain texts."""
    lines = [json.dumps({"text": text, "source": f"s{len(text) % 3}"}) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Source(path=str(path))


def run_of(folder: Path, *sources: Source, scan: Any = None, directions: int = DIRECTIONS) -> Run:
    """A run that is not scanned yet, with its directions."""
    settings = Settings(
        name=folder.name,
        runs=str(folder.parent),
        model=ModelSettings(tuned="pico/tuned"),
        corpus=CorpusSettings(sources=sources),
        scan=ScanSettings(**SCAN | (scan or {})),
    )
    run = Run(folder, settings)
    folder.mkdir(parents=True, exist_ok=True)
    save_directions(run.directions_path, directions_of(directions))
    return run


def scan(run: Run) -> Path:
    """The run's database, after freezing its corpus and writing a shard for each slice."""
    directions = directions_of(DIRECTIONS)
    with claimed(checked_run(run)):
        frozen = freeze_corpus(run)
        units = []
        slices = [(at, item) for at, part in enumerate(frozen["parts"]) for item in part["slices"]]
        for number, (part, item) in enumerate(slices):
            fingerprint = digest_of(item["digest"], item["notes_digest"])[:16]
            units.append(Unit(number, fingerprint, item["documents"], part))
            place = run.folder / "shards" / units[-1].name
            if not place.is_dir():
                _write_shard(place, run, item)
        merge_shards(run, directions, units, digest_of([unit.name for unit in units]), frozen)
    return run.database_path


def _write_shard(place: Path, run: Run, item: dict[str, Any]) -> None:
    documents = slice_documents(
        read_checked(run.corpus_path / item["name"], item["digest"]),
        read_checked(run.corpus_path / item["notes"], item["notes_digest"]),
    )
    place.mkdir(parents=True)
    digests = {}
    for name, rows in _tables(documents, run.settings.scan).items():
        data = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=SHARD_FILES[name]), data)
        (place / name).write_bytes(data.getvalue())
        digests[name] = xxhash.xxh3_128_hexdigest(data.getvalue())
    (place / "digests.json").write_text(json.dumps(digests), encoding="utf-8")


def _tokens(document: Document) -> list[str]:
    words = document.text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:]


def activations(document: Document) -> npt.NDArray[np.int16]:
    """[DIRECTIONS, tokens]; each by the text up to it alone, as those of a model are."""
    state = hashlib.blake2b(digest_size=8 * DIRECTIONS)
    digests = []
    for token in _tokens(document):
        state.update(token.encode())
        digests.append(state.copy().digest())
    uniform = np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, DIRECTIONS, 2)
    one, other = ((uniform + 0.5) / 2**32).T
    # Normal values, after Box and Muller.
    noise = np.sqrt(-2 * np.log(one)) * np.cos(2 * np.pi * other)
    found: npt.NDArray[np.int16] = (noise.clip(-10, 10) * 0.1 * ACTIVATION_SCALE).astype(np.int16)
    return found


def _prefix(document: Document, position: int) -> int:
    """A number for the text up to a token and with it."""
    return xxhash.xxh3_64_intdigest("".join(_tokens(document)[: position + 1]).encode())


def _tables(documents: list[Document], settings: ScanSettings) -> dict[str, list[dict[str, Any]]]:
    held = {document.doc_id: activations(document) for document in documents}
    levels = {d.doc_id: min(_trailing_zeros(d.priority), LEVELS - 1) for d in documents}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SHARD_FILES}
    for direction in range(DIRECTIONS):
        for pole, sign in enumerate((-1, 1)):
            rows = [_peak(d, held, direction, pole, settings.window) for d in documents]
            rows.sort(key=lambda row: (sign * row["value"], row["doc_id"]))
            # A shard may keep more than it has to.
            found["examples.parquet"] += rows
            firsts = {d.doc_id: d.source for d in documents if d.is_first}
            tail = [{**row, "source": firsts[row["doc_id"]]} for row in rows
                    if row["doc_id"] in firsts]  # fmt: skip
            found["tail.parquet"] += tail[: settings.tail]
        for level in sorted(set(levels.values())):
            own = [held[doc_id][direction] for doc_id, at in levels.items() if at == level]
            low, high = min(v.min() for v in own), max(v.max() for v in own)
            extremes = {"minimum": low / ACTIVATION_SCALE, "maximum": high / ACTIVATION_SCALE}
            found["levels.parquet"].append({"direction": direction, "level": level, **extremes})
        values = np.concatenate([held[d.doc_id][direction] for d in documents]) / ACTIVATION_SCALE
        found["stats.parquet"].append(
            {
                "direction": direction, "role": _TEXT, "model": 0, "n": len(values),
                "total": values.sum(), "squares": (values**2).sum(),
                "minimum": values.min(), "maximum": values.max(),
                "counts": np.histogram(values, HISTOGRAM_BINS, (-1, 1))[0].tolist(),
            }
        )  # fmt: skip
    found["documents.parquet"] = [
        {
            "doc_id": document.doc_id, "piece": 0, "first": 0, "source": document.source,
            "text": document.text, "roles": [_TEXT] * len(_tokens(document)),
            "token_ends": np.cumsum([len(token) for token in _tokens(document)]).tolist(),
        }
        for document in documents
    ]  # fmt: skip
    found["samples.parquet"] = [
        _sample(d, held[d.doc_id], 2 * settings.window + 1) for d in documents if d.sampled
    ]
    found["counts.parquet"] = _counts(documents, levels)
    return found


def _sample(document: Document, held: npt.NDArray[np.int16], window: int) -> dict[str, Any]:
    n = held.shape[1]
    length = min(window, n)
    start = (document.priority >> 24) % (n - length + 1)
    return {
        "priority": document.priority, "doc_id": document.doc_id, "cluster": document.cluster,
        "piece": 0, "start": start, "length": length,
        "activations": held[:, start : start + length].ravel().tolist(),
    }  # fmt: skip


def _trailing_zeros(value: int) -> int:
    return (value & -value).bit_length() - 1 if value else 64


def _peak(
    document: Document, held: dict[int, Any], direction: int, pole: int, window: int
) -> dict[str, Any]:
    values = held[document.doc_id][direction]
    position = int((values.argmax, values.argmin)[pole]())
    start = max(0, position - window)
    return {
        "direction": direction, "role": _TEXT, "pole": pole, "doc_id": document.doc_id,
        "value": values[position] / ACTIVATION_SCALE, "cluster": document.cluster, "piece": 0,
        "prefix": _prefix(document, position),
        "position": position, "start": start,
        "activations": values[start : position + window + 1].tolist(),
    }  # fmt: skip


def _counts(documents: list[Document], levels: dict[int, int]) -> list[dict[str, Any]]:
    found: Counter[tuple[str, str]] = Counter()
    for document in documents:
        found["documents", document.source] += 1
        found["tokens", document.source] += len(_tokens(document))
        found["distinct", document.source] += document.is_first
        found["levels", str(levels[document.doc_id])] += 1
    return [
        {"what": what, "name": name, "layer": None, "n": n} for (what, name), n in found.items()
    ]
