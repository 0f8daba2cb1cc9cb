"""Which documents does a run scan? The corpus, frozen in the run folder as one slice a shard.

A frozen corpus is read again instead of its sources, so that a resumed scan reads the same bytes,
workers need no network, and a source that changed meanwhile is noticed. It has parts: sources that
are added to a run become a further part, whose documents alone are read, and what was frozen before
stays as it is. A part is written beside and appears whole, when ``corpus.json`` names it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from builder.config import CorpusSettings, ScanSettings, Settings, Source
from builder.errors import ConfigError, CorpusError, StoreError
from builder.execute import disk_errors, read_json, write_json
from builder.run_folder import (
    Run,
    digest_of,
    frozen_sources,
    record_stage,
    timed,
    write_settings,
)

if TYPE_CHECKING:
    from builder.activations.clusters import SketchTable
    from builder.activations.corpus import Document
    from builder.activations.rows import CorpusTally

#: Characters in one slice, about; slices of long documents hold fewer of them.
_SLICE_CHARACTERS = 1 << 26


def check_corpus(corpus: CorpusSettings) -> None:
    """Raises ConfigError if no source of documents is set."""
    if not corpus.sources:
        raise ConfigError(
            "corpus.sources: needed for a scan, but empty; add a [[corpus.sources]] table to the "
            "recipe, or such as --set 'corpus.sources=[{path=\"texts.jsonl\"}]'"
        )


def freeze_corpus(run: Run) -> dict[str, Any]:
    """What the corpus holds (the value of ``corpus.json``), frozen in the run folder.

    Reads the sources that are not frozen yet, and nothing again. Raises CorpusError when a source
    cannot be read or changed since it was frozen.
    """
    folder = run.corpus_path
    known = read_json(folder / "corpus.json")
    shutil.rmtree(_beside(run), ignore_errors=True)
    parts = [] if known is None else _parts(run, known)
    _remove_unnamed(folder, parts)
    left = run.settings.corpus.sources[sum(len(part["sources"]) for part in parts) :]
    if parts and not left:
        return dict(known)
    with disk_errors(run.folder), timed() as cost:
        try:
            part = _freeze_part(run, parts, left)
            frozen = {"parts": [*parts, part]}
            _publish(run, frozen)
        except BaseException:
            shutil.rmtree(_beside(run), ignore_errors=True)
            raise
    write_settings(run)
    documents = sum(part["documents"] for part in frozen["parts"])
    stamp = digest_of([part["stamp"] for part in frozen["parts"]])
    record_stage(run.folder, "corpus", stamp, cost, {"documents": documents})
    return frozen


def _beside(run: Run) -> Path:
    return run.folder / "corpus.part"


def _parts(run: Run, known: Any) -> list[dict[str, Any]]:
    """The parts that are frozen, after a look at whether their sources are what they were."""
    from builder.activations.reading import corpus_stamp

    if not isinstance(known, dict) or not isinstance(known.get("parts"), list):
        raise StoreError(
            f"{run.corpus_path}: was frozen by an older version, or is damaged; delete the run "
            "folder to start anew"
        )
    parts: list[dict[str, Any]] = known["parts"]
    corpus = run.settings.corpus
    at = 0
    for part, frozen in zip(parts, frozen_sources(run.folder), strict=True):
        sources = corpus.sources[at : at + len(frozen)]
        at += len(frozen)
        if sources != frozen:
            raise ConfigError(
                f"{run.folder}: its corpus is of other sources; sources can be added to a run, "
                "not changed"
            )
        if corpus_stamp(corpus.model_copy(update={"sources": sources})) != part["stamp"]:
            raise CorpusError(
                f"{run.folder}: the corpus files changed since this run began; use another run "
                "name, or delete the folder to start anew"
            )
    return parts


def _remove_unnamed(folder: Path, parts: Sequence[Mapping[str, Any]]) -> None:
    """Removes what a killed process put into the folder before it could name it."""
    if not folder.is_dir():
        return
    with disk_errors(folder):
        if not parts:
            shutil.rmtree(folder)
            return
        named = {"corpus.json"}
        for part in parts:
            named |= {part["clusters"], part["sketches"]}
            named |= {item[which] for item in part["slices"] for which in ("name", "notes")}
        for path in folder.iterdir():
            if path.name not in named:
                path.unlink()


def _publish(run: Run, frozen: dict[str, Any]) -> None:
    """Puts the new part in its place; only ``corpus.json`` makes it a part."""
    beside, folder = _beside(run), run.corpus_path
    if not folder.is_dir():
        write_json(beside / "corpus.json", frozen)
        beside.rename(folder)
        return
    for path in beside.iterdir():
        path.rename(folder / path.name)
    write_json(folder / "corpus.json", frozen)
    beside.rmdir()


@dataclass(slots=True)
class _Facts:
    """What is known of each document of a part, in order, and the slices they are in."""

    doc_ids: array[int] = field(default_factory=lambda: array("q"))
    #: 64 bits of what each says, and of that with the seed.
    texts: array[int] = field(default_factory=lambda: array("Q"))
    priorities: array[int] = field(default_factory=lambda: array("Q"))
    slices: list[dict[str, Any]] = field(default_factory=list)


def _freeze_part(
    run: Run, parts: Sequence[Mapping[str, Any]], sources: tuple[Source, ...]
) -> dict[str, Any]:
    """Writes the files of a further part beside the corpus; returns what ``corpus.json`` says."""
    from builder.activations.clusters import SketchTable
    from builder.activations.reading import corpus_stamp
    from builder.activations.rows import CorpusTally

    corpus = run.settings.corpus.model_copy(update={"sources": sources})
    stamp = corpus_stamp(corpus)
    place, tally = _beside(run), CorpusTally()
    place.mkdir()
    table = SketchTable(place / "sketches")
    for part in parts:
        table.append_part(run.corpus_path / part["sketches"], part["sketches_digest"])
    first_slice = sum(len(part["slices"]) for part in parts)
    limited = corpus.model_copy(update={"max_documents": _documents_left(corpus, parts)})
    facts = _write_slices(limited, run.settings.scan, place, first_slice, tally, table)
    name = f"part{len(parts):03d}"
    named = _write_notes(facts, run.settings, place, name, table)
    table.path.unlink()
    return {
        "stamp": stamp,
        "sources": [source.model_dump(mode="json") for source in sources],
        "rows": tally.rows,
        "documents": tally.documents.total(),
        "dropped": dict(tally.dropped),
        "noted": {what: n for what, n in tally.noted.items() if n},
        "slices": facts.slices,
        **named,
    }


def _documents_left(corpus: CorpusSettings, parts: Sequence[Mapping[str, Any]]) -> int | None:
    """How many documents may still be read; ``max_documents`` is of the whole run."""
    if corpus.max_documents is None:
        return None
    left: int = corpus.max_documents - sum(part["documents"] for part in parts)
    if left <= 0:
        raise ConfigError(
            f"corpus.max_documents: the {corpus.max_documents} documents it allows are frozen "
            "already; leave the added sources out, or use another run name"
        )
    return left


def _write_slices(
    corpus: CorpusSettings,
    scan: ScanSettings,
    place: Path,
    first_slice: int,
    tally: CorpusTally,
    table: SketchTable,
) -> _Facts:
    """Reads the documents once and writes their slices and sketches."""
    from builder.activations.corpus import content_of, digest_of_bytes, slice_bytes
    from builder.activations.near_duplicates import sketches
    from builder.activations.reading import read_documents

    facts = _Facts()
    key = scan.seed.to_bytes(8, "little", signed=True)
    shown = tqdm(read_documents(corpus, tally), "corpus", unit=" documents", delay=1, disable=None)
    for documents in _sliced(shown, scan.shard_documents):
        name = f"{first_slice + len(facts.slices):06d}"
        data = slice_bytes(documents)
        _put(place / f"{name}.parquet", data)
        facts.slices.append(
            {
                "name": f"{name}.parquet",
                "documents": len(documents),
                "digest": digest_of_bytes(data),
                "notes": f"{name}.notes.parquet",
            }
        )
        facts.doc_ids.extend(document.doc_id for document in documents)
        for document in documents:
            content = content_of(document)
            facts.texts.append(_bits(content))
            facts.priorities.append(_bits(content, key))
        table.append(sketches(documents))
    return facts


def _sliced(documents: Iterator[Document], most: int) -> Iterator[list[Document]]:
    pending: list[Document] = []
    characters = 0
    for document in documents:
        pending.append(document)
        characters += len(document.text) + sum(len(item.content) for item in document.messages)
        if len(pending) == most or characters >= _SLICE_CHARACTERS:
            yield pending
            pending, characters = [], 0
    if pending:
        yield pending


def _write_notes(
    facts: _Facts, settings: Settings, place: Path, name: str, table: SketchTable
) -> dict[str, str]:
    """Writes what is known once all documents are read; returns the files of the whole part."""
    import numpy as np

    from builder.activations.corpus import clusters_bytes, digest_of_bytes, notes_bytes

    texts = np.frombuffer(facts.texts, dtype=np.uint64)
    priorities = np.frombuffer(facts.priorities, dtype=np.uint64)
    doc_ids = np.frombuffer(facts.doc_ids, dtype=np.int64)
    found = table.cluster(texts, settings.corpus.near_duplicate)
    firsts = np.flatnonzero(found.is_first)
    wanted = settings.scan.reservoir + settings.scan.held_out
    sampled = np.zeros(len(texts), dtype=np.bool_)
    sampled[firsts[np.argsort(priorities[firsts], kind="stable")[:wanted]]] = True
    start = 0
    for item in facts.slices:
        rows = slice(start, start + item["documents"])
        start = rows.stop
        data = notes_bytes(
            doc_ids[rows],
            found.cluster[rows],
            found.is_first[rows],
            priorities[rows],
            sampled[rows],
        )
        _put(place / item["notes"], data)
        item["notes_digest"] = digest_of_bytes(data)
    data = clusters_bytes(*found.repeated())
    clusters, sketches = f"{name}.clusters.parquet", f"{name}.sketches.parquet"
    _put(place / clusters, data)
    return {
        "clusters": clusters,
        "clusters_digest": digest_of_bytes(data),
        "sketches": sketches,
        "sketches_digest": table.keep(place / sketches, texts, found),
    }


def _put(path: Path, data: bytes) -> None:
    """Writes a file so that it is on the disk before ``corpus.json`` names it."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _bits(content: bytes, key: bytes = b"") -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "little")
