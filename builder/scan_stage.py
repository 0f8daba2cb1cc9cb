"""How is a corpus scanned, shard by shard? From the frozen corpus to finished shards.

A shard is scanned if it is not there, whole and made of the same things. Who scans it is the
executor's business; what is done to it (:class:`ScanJob`) is the same everywhere.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from builder.config import ModelSettings, ScanSettings, Settings, here
from builder.errors import ConfigError, printable
from builder.execute import Executor, Files, Unit, check_units, make_executor, run_units
from builder.provenance import model_stamps
from builder.records import DirectionSet
from builder.run_folder import Run, digest_of
from builder.scan_progress import ScanProgress

#: Goes into every shard's fingerprint; raised when the scan computes something else.
_SCAN_VERSION = 5


@dataclass(frozen=True, slots=True, eq=False)
class ScanJob:
    """What is done to each shard, by whoever does it: see :class:`builder.execute.Job`.

    ``model`` names commits and absolute paths, so that it means the same in every process.
    """

    model: ModelSettings
    scan: ScanSettings
    directions: DirectionSet

    def preparer(self) -> Callable[[tuple[bytes, bytes]], Any]:
        """From a slice's bytes and its notes' to its documents as tokens."""
        from builder.activations.corpus import slice_documents
        from builder.activations.model import load_tokenizer

        tokenizer = load_tokenizer(self.model, self.scan)
        return lambda task: tokenizer.tokenize(slice_documents(*task))

    def worker(
        self, device: str, threads: int | None, on_batch: Callable[[int, int], None]
    ) -> Callable[[Any], Files]:
        """From documents as tokens to the shard's files; loads the model, and its base if asked."""
        import torch

        from builder.activations.model import load_base, load_model
        from builder.activations.scan import Scanner
        from builder.activations.shard_tables import shard_files

        if threads is not None:
            torch.set_num_threads(threads)
        settings = self.scan.model_copy(update={"device": device})
        model = load_model(self.model, settings)
        base = load_base(self.model, settings) if settings.with_base else None
        scanner = Scanner(model, self.directions, settings, base)
        return lambda prepared: shard_files(scanner.scan(prepared, on_batch), settings)


def scan_job(run: Run, directions: DirectionSet) -> ScanJob:
    """What is done to a run's shards, by the models that the directions are from.

    Models of the hub are taken at the commits that the directions were taken at, whatever is there
    by now.
    """
    model = run.settings.model
    pinned = {
        "tuned": here(model.tuned),
        "base": here(model.base),
        "adapter_base": here(model.adapter_base),
        "tuned_revision": directions.tuned.revision,
        "base_revision": directions.base.revision if directions.base and model.base else None,
        "adapter_base_revision": directions.facts.get("adapter_base_revision"),
    }
    changed = {key: value for key, value in pinned.items() if value}
    return ScanJob(model.model_copy(update=changed), run.settings.scan, directions)


def scan_executor(settings: Settings) -> Executor:
    """Who scans the shards of a run; nothing is started yet.

    Raises ConfigError where Ray is asked for and not installed, and where each of several workers
    would have all GPUs.
    """
    scan, compute = settings.scan, settings.compute
    if scan.device == "spread" and (compute.workers > 1 or compute.executor == "ray"):
        raise ConfigError(
            "scan.device: 'spread' gives one model all GPUs of this machine, so it goes with "
            "compute.executor = 'local' and compute.workers = 1"
        )
    devices: tuple[str, ...] = (scan.device,)
    if compute.executor == "local" and compute.workers > 1 and scan.device in ("auto", "cuda"):
        # Takes a second to import, and only here is asked for more than one device.
        import torch

        devices = tuple(f"cuda:{n}" for n in range(torch.cuda.device_count())) or devices
    return make_executor(compute, devices)


def plan_units(
    run: Run, directions: DirectionSet, frozen: dict[str, Any]
) -> tuple[list[Unit], str]:
    """The scan's shards, one for each slice of the corpus, and a digest of all they depend on.

    A shard's fingerprint says nothing of the other shards, nor of its part of the corpus.
    """
    scan = run.settings.scan.model_dump(exclude={"batch_tokens", "device"})
    stamps = model_stamps(run, keep=True)
    with_base = run.settings.scan.with_base or directions.tuned.kind == "adapter"
    run_files = stamps["tuned"] + (stamps["base"] if with_base else [])
    scanned = hashlib.blake2b(json.dumps(run_files).encode(), digest_size=16)
    for revision in (directions.base, directions.tuned):
        scanned.update(f"{revision.revision if revision else None}\0".encode())
    for direction in directions.directions:
        scanned.update(f"{direction.id}\0{direction.content_hash}\0".encode())
        scanned.update(direction.vector.tobytes())
    depends = (_SCAN_VERSION, scan, scanned.hexdigest())
    slices = [(part, item) for part, held in enumerate(frozen["parts"]) for item in held["slices"]]
    units = [
        Unit(
            number,
            digest_of(*depends, item["digest"], item["notes_digest"])[:16],
            item["documents"],
            part,
        )
        for number, (part, item) in enumerate(slices)
    ]
    return units, digest_of([unit.name for unit in units])


def scan_units(
    run: Run,
    job: ScanJob,
    executor: Executor,
    units: list[Unit],
    digest: str,
    frozen: dict[str, Any],
) -> None:
    """Scans what is not scanned yet, after checking what is; see ``stages/progress.json``.

    Raises CorpusError when a slice is not as it was frozen, and whatever the scan raises.
    """
    from builder.activations.corpus import read_checked

    shards = run.folder / "shards"
    slices = [item for part in frozen["parts"] for item in part["slices"]]

    def task_of(unit: Unit) -> tuple[bytes, bytes]:
        item = slices[unit.number]
        return (
            read_checked(run.corpus_path / item["name"], item["digest"]),
            read_checked(run.corpus_path / item["notes"], item["notes_digest"]),
        )

    checked = check_units(units, shards)
    for damage in checked.damaged:
        tqdm.write(f"warning: {printable(damage)}; this shard is scanned again", file=sys.stderr)
    with ScanProgress(run.folder, digest, units, executor, len(checked.damaged)) as progress:
        for unit in checked.finished:
            progress.found(unit, counted([shards / unit.name]))
        progress.begin()
        run_units(
            checked.missing,
            shards,
            executor,
            job,
            task_of,
            lambda unit: progress.done(unit, counted([shards / unit.name])),
            progress.batch,
        )
        progress.finish()


def counted(shards: Iterable[Path]) -> defaultdict[str, Counter[str]]:
    """What finished shards counted, over all of them: number by name, for each kind of count."""
    from builder.activations.shard_files import read_counts

    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for shard in shards:
        for what, name, n in read_counts(shard):
            counted[what][name] += n
    return counted
