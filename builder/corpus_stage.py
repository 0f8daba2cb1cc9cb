"""Which documents does a run scan? The corpus, frozen in the run folder as one slice a shard.

A frozen corpus is read again instead of its sources, so that a resumed scan reads the same bytes,
workers need no network, and a source that changed meanwhile is noticed.
"""

from __future__ import annotations

import shutil
from typing import Any

from tqdm import tqdm

from builder.config import CorpusSettings
from builder.errors import ConfigError, CorpusError, StoreError
from builder.execute import disk_errors, read_json, write_json
from builder.run_folder import Run, record_stage, timed


def check_corpus(corpus: CorpusSettings) -> None:
    """Raises ConfigError if no source of documents is set."""
    if not corpus.sources:
        raise ConfigError(
            "corpus.sources: needed for a scan, but empty; add a [[corpus.sources]] table to the "
            "recipe, or such as --set 'corpus.sources=[{path=\"texts.jsonl\"}]'"
        )


def freeze_corpus(run: Run) -> dict[str, Any]:
    """What the corpus holds, after freezing it as one slice per shard in the run folder."""
    from builder.activations.corpus import (
        CorpusTally,
        Document,
        corpus_stamp,
        read_documents,
        write_slice,
    )

    settings = run.settings
    stamp = corpus_stamp(settings.corpus)
    known = read_json(run.corpus_path / "corpus.json")
    if known is not None:
        if not isinstance(known, dict) or not {"stamp", "slices", "documents"} <= known.keys():
            raise StoreError(f"{run.corpus_path}: is damaged; delete the run folder to start anew")
        if known["stamp"] != stamp:
            raise CorpusError(
                f"{run.folder}: the corpus files changed since this run began; use another run "
                "name, or delete the folder to start anew"
            )
        return dict(known)
    part = run.folder / "corpus.part"
    shutil.rmtree(part, ignore_errors=True)
    tally = CorpusTally()
    slices: list[dict[str, Any]] = []
    pending: list[Document] = []

    def flush() -> None:
        path = part / f"{len(slices):06d}.parquet"
        digest = write_slice(path, pending)
        slices.append({"name": path.name, "documents": len(pending), "digest": digest})
        pending.clear()

    try:
        with disk_errors(run.folder), timed() as cost:
            part.mkdir()
            documents = read_documents(settings.corpus, tally)
            for document in tqdm(documents, "corpus", unit=" documents", delay=1, disable=None):
                pending.append(document)
                if len(pending) == settings.scan.shard_documents:
                    flush()
            if pending:
                flush()
            frozen: dict[str, Any] = {
                "stamp": stamp,
                "documents": sum(tally.documents.values()),
                "dropped": dict(tally.dropped),
                "noted": {name: n for name, n in tally.noted.items() if n},
                "slices": slices,
            }
            write_json(part / "corpus.json", frozen)
            part.rename(run.corpus_path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    record_stage(run.folder, "corpus", stamp, cost, {"documents": frozen["documents"]})
    return frozen
