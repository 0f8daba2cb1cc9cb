"""How is a corpus scanned, shard by shard? From the frozen corpus to finished shards.

A shard is scanned if it is not there, whole and made of the same things.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from builder.execute import Unit, run_units
from builder.provenance import model_stamps
from builder.records import DirectionSet
from builder.run_folder import Cost, Run, digest_of, peak_memory_mb, record_stage, stage_record

if TYPE_CHECKING:
    from builder.activations.model import ScannedModel

#: Goes into every shard's fingerprint; raised when the scan computes something else.
_SCAN_VERSION = 3


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


def counted(shards: Iterable[Path]) -> defaultdict[str, Counter[str]]:
    """What finished shards counted, over all of them: number by name, for each kind of count."""
    from builder.activations.shard_files import read_counts

    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for shard in shards:
        for what, name, n in read_counts(shard):
            counted[what][name] += n
    return counted
