"""How is a corpus scanned, shard by shard? The steps between a run's directions and its database.

The corpus is frozen in the run folder as one slice a shard; a shard is scanned if its file is not
there; the files are merged into the database. Each step does nothing where its result stands.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from builder.config import CorpusSettings
from builder.errors import ConfigError, CorpusError, StoreError
from builder.execute import Unit, disk_errors, read_json, run_units, write_json
from builder.provenance import model_stamps, public_facts
from builder.records import Direction, DirectionSet, Spectrum
from builder.run_folder import (
    Cost,
    Run,
    digest_of,
    peak_memory_mb,
    record_stage,
    stage_record,
    timed,
)

if TYPE_CHECKING:
    from builder.activations.model import ScannedModel

#: Goes into every shard's fingerprint; raised when the scan computes something else.
_SCAN_VERSION = 2


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


def plan_units(
    run: Run, directions: DirectionSet, frozen: dict[str, Any]
) -> tuple[list[Unit], str]:
    """The scan's shards, and a digest of all they depend on."""
    scan = run.settings.scan.model_dump(exclude={"batch_tokens", "device"})
    stamps = model_stamps(run, keep=True)
    run_files = stamps["tuned"] + (stamps["base"] if directions.tuned.kind == "adapter" else [])
    scanned = hashlib.blake2b(json.dumps(run_files).encode(), digest_size=16)
    for revision in (directions.base, directions.tuned):
        scanned.update(f"{revision.revision if revision else None}\0".encode())
    for direction in directions.directions:
        scanned.update(f"{direction.id}\0{direction.content_hash}\0".encode())
        scanned.update(direction.vector.tobytes())
    units = [
        Unit(
            number,
            digest_of(_SCAN_VERSION, scan, scanned.hexdigest(), item["digest"])[:16],
            item["documents"],
        )
        for number, item in enumerate(frozen["slices"])
    ]
    return units, digest_of([unit.name for unit in units])


def scan_units(
    run: Run,
    directions: DirectionSet,
    units: list[Unit],
    digest: str,
    frozen: dict[str, Any],
    model: ScannedModel | None,
) -> None:
    """Scans what is not scanned yet; ``model`` may be loaded already, else it is when needed."""
    from builder.activations.corpus import read_slice
    from builder.activations.scan import Scanner, write_shard

    settings, shards = run.settings, run.folder / "shards"
    before = stage_record(run.folder, "scan") or {}
    # A scan that goes on after a stop took what both parts took.
    resumed = before if before.get("fingerprint") == digest else {}
    spent, start = float(resumed.get("seconds", 0.0)), time.perf_counter()
    recorded, tokens, shown = resumed.get("tokens"), 0, 0
    scanner: Scanner | None = None

    def record() -> None:
        nonlocal recorded
        cost = Cost(spent + time.perf_counter() - start, peak_memory_mb())
        record_stage(run.folder, "scan", digest, cost, {"tokens": tokens})
        recorded = tokens

    total = sum(unit.size for unit in units)
    with tqdm(None, "scan", total=total, unit=" documents", delay=1, disable=None) as bar:

        def on_batch(n_documents: int, n_tokens: int) -> None:
            nonlocal shown
            shown += n_tokens
            bar.update(n_documents)
            bar.set_postfix(tokens=f"{shown:,}", refresh=False)

        def work(unit: Unit, place: Path) -> None:
            nonlocal scanner
            scanner = scanner or Scanner(
                model or load_scanned(run, directions), directions, settings.scan
            )
            item = frozen["slices"][unit.number]
            documents = read_slice(run.corpus_path / item["name"], item["digest"])
            write_shard(scanner.scan(documents, on_batch), place, settings.scan)

        def on_done(unit: Unit, reused: bool) -> None:
            nonlocal tokens
            tokens += counted([shards / unit.name])["tokens"].total()
            if reused:
                bar.update(unit.size)
            else:
                record()

        run_units(units, shards, work, on_done)
    if recorded != tokens:
        record()


def load_scanned(run: Run, directions: DirectionSet) -> ScannedModel:
    """The tuned model at the commit that the directions are from, whatever the hub has by now."""
    from builder.activations.model import load_model

    model = run.settings.model
    commits = {
        "tuned_revision": directions.tuned.revision,
        "base_revision": directions.base.revision if directions.base and model.base else None,
        "adapter_base_revision": directions.facts.get("adapter_base_revision"),
    }
    pinned = model.model_copy(update={key: value for key, value in commits.items() if value})
    return load_model(pinned, run.settings.scan)


def merge_shards(
    run: Run, directions: DirectionSet, units: list[Unit], digest: str, frozen: dict[str, Any]
) -> None:
    """Merges the shards into the run's database, unless it holds just these."""
    from builder.store import RunStore, write_database

    settings = run.settings
    wanted = digest_of(digest, settings.scan.top, settings.scan.reservoir, _described(directions))
    if run.database_path.is_file():
        with RunStore(run.database_path) as store:
            if store.meta().get("scan_fingerprint") == wanted:
                return
    shards = [run.folder / "shards" / unit.name for unit in units]
    _refuse_if_nothing_was_read(run, shards)
    with timed() as cost:
        write_database(
            run.database_path,
            directions,
            shards,
            top=settings.scan.top,
            reservoir=settings.scan.reservoir,
            meta={"scan_fingerprint": wanted, **public_facts(run, directions, frozen)},
            counts=[
                *(("dropped", reason, n) for reason, n in frozen["dropped"].items()),
                *(("noted", reason, n) for reason, n in frozen["noted"].items()),
            ],
        )
    record_stage(run.folder, "merge", wanted, cost, {"bytes": run.database_path.stat().st_size})


def _described(directions: DirectionSet) -> str:
    """A digest of what the database holds of the directions beyond what the scan depends on."""
    items: list[Direction | Spectrum] = [*directions.directions, *directions.spectra]
    values = [
        getattr(item, field.name)
        for item in items
        for field in dataclasses.fields(item)
        if field.name != "vector"
    ]
    return digest_of([value.tolist() if hasattr(value, "tolist") else value for value in values])


def _refuse_if_nothing_was_read(run: Run, shards: list[Path]) -> None:
    """Raises CorpusError when the model could be shown none of the documents, and says why."""
    counts = counted(shards)
    if counts["documents"]:
        return
    reasons = counts["dropped"].most_common()
    why = "; ".join(f"{n} documents: {reason}" for reason, n in reasons)
    raise CorpusError(f"{run.folder}: no document of the corpus could be shown to the model; {why}")


def counted(shards: Iterable[Path]) -> defaultdict[str, Counter[str]]:
    """What finished shards counted, over all of them: number by name, for each kind of count."""
    from builder.activations.shard_files import read_counts

    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for shard in shards:
        for what, name, n in read_counts(shard):
            counted[what][name] += n
    return counted
