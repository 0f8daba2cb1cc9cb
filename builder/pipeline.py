"""In which order is the work done? One short function a stage, each resumable.

Every stage checks by fingerprint whether its result is already there and does nothing if so.
Results appear whole or not at all, so a run that was killed anywhere goes on when the same command
is given again. What a stage took (seconds, peak memory) stands in ``stages/`` in the run folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from builder import __version__
from builder.config import SiteSettings
from builder.errors import ConfigError, CorpusError, StoreError
from builder.execute import Unit, disk_errors, read_json, run_units, write_json
from builder.provenance import changeable_facts, model_stamps, public_facts
from builder.records import ANY_ROLE, POLES, DirectionSet, Label, LabelFailure
from builder.run_folder import (
    Cost,
    Run,
    claimed,
    digest_of,
    existing_run,
    peak_memory_mb,
    record_stage,
    stage_record,
    timed,
)

if TYPE_CHECKING:
    from builder.activations.model import ScannedModel
    from builder.pages.site import SiteReport

#: Goes into every shard's fingerprint; raised when the scan computes something else.
_SCAN_VERSION = 2


def build(run: Run) -> SiteReport:
    """The site of one run, after every stage in order; finished stages are skipped."""
    preflight(run)
    make_directions(run)
    make_scan(run)
    make_labels(run)
    return add_to_site([run.folder], run.settings.site)


#: The stages in order, as :func:`preflight` and the command line name them.
STAGES = ("directions", "scan", "labels", "site")


def preflight(run: Run, until: str = "site") -> None:
    """Finds what can be known to be wrong before anything is computed or written.

    Looks at what the stages up to ``until`` need. Raises the error that the stage would raise.
    """
    from builder.activations.corpus import source_files
    from builder.weights.source import locate

    settings = run.settings
    stages = STAGES[: STAGES.index(until) + 1]
    _usable_folder(Path(settings.runs))
    for name, revision in (
        (settings.model.tuned, settings.model.tuned_revision),
        (settings.model.base, settings.model.base_revision),
    ):
        if name and (_may_be_here(name) or name.count("/") != 1):
            locate(name, revision)
    for source in settings.corpus.sources:
        if source.path:
            source_files(source)
    if "scan" in stages:
        from builder.activations.model import check_model

        check_model(settings.model, settings.scan)
    if "labels" in stages:
        from builder.labels.explain import check_labeler

        check_labeler(settings.label)
    if "site" in stages:
        check_site(Path(settings.site.out))


def check_site(out: Path) -> None:
    """Raises SiteError if no site can be built in ``out``."""
    from builder.pages.folder import SiteFolder

    SiteFolder(out)


def _may_be_here(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError):  # a closed folder, or no such user; locating it tells
        return True


def _usable_folder(place: Path) -> None:
    for part in (place, *place.parents):
        if part.exists():
            if not part.is_dir():
                raise ConfigError(f"{part}: is a file; runs need a folder")
            return


def make_directions(run: Run) -> DirectionSet:
    """The run's directions, from the weights or from the file of an earlier call."""
    from builder.weights.directions import compute_directions, load_directions, save_directions

    settings = run.settings
    stamps = model_stamps(run)
    wanted = digest_of(
        settings.model.model_dump(exclude={"title"}),
        settings.directions.model_dump(),
        [*stamps["tuned"], *stamps["base"]],
    )
    stage = stage_record(run.folder, "directions")
    if run.directions_path.is_file() and (stage or {}).get("fingerprint") == wanted:
        return load_directions(run.directions_path)
    with timed() as cost:
        directions = compute_directions(settings.model, settings.directions)
    with claimed(run), disk_errors(run.folder):
        save_directions(run.directions_path, directions)
        record_stage(
            run.folder, "directions", wanted, cost, {"directions": len(directions.directions)}
        )
    return directions


def make_scan(run: Run) -> Path:
    """The run's database, with every example, histogram and count but no labels yet."""
    directions = make_directions(run)
    with claimed(run):
        # A fault of the model shows before the corpus is read, which may take long.
        model = None if run.corpus_path.is_dir() else _load(run, directions)
        frozen = freeze_corpus(run)
        units, digest = _plan(run, directions, frozen)
        _scan_units(run, directions, units, digest, frozen, model)
        _merge(run, directions, units, digest, frozen)
    return run.database_path


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


def make_labels(run: Run) -> dict[str, int]:
    """How many poles have a label, show no pattern, or failed; labels stand in the database.

    Labels that other labelers gave stay beside them.
    """
    from builder.labels.evidence import Background, Evidence
    from builder.labels.explain import (
        MOMENTARY_REASONS,
        check_labeler,
        label_fingerprint,
        label_poles,
        labeler_name,
    )
    from builder.store import RunStore

    settings = run.settings.label
    check_labeler(settings)
    labeler = labeler_name(settings)
    if not run.database_path.is_file():
        raise ConfigError(f"{run.folder}: nothing is scanned yet; run `weightatlas scan` first")
    with claimed(run):
        _refresh_facts(run)
        with RunStore(run.database_path) as store:
            scanned = store.meta()["scan_fingerprint"]
            wanted = digest_of(scanned, __version__, label_fingerprint(settings))
            known = [label for label in store.labels() if label.labeler == labeler]
            failed = [item for item in store.label_failures() if item.labeler == labeler]
            # What failed for a momentary reason is tried again; replies that were had are cached.
            final = all(failure.reason not in MOMENTARY_REASONS for failure in failed)
            if store.label_fingerprint(labeler) == wanted and final:
                return _label_summary(known, failed)
            with timed() as cost:
                background = Background.from_windows(store.reservoir())
                rows = store.directions()

                def evidences() -> Iterator[Evidence]:
                    for row in rows:
                        examples = store.examples(row.id, role=ANY_ROLE)
                        for pole in POLES:
                            lens = row.promoted if pole == "max" else row.suppressed
                            yield Evidence(
                                direction=row.id,
                                pole=pole,
                                examples=tuple(e for e in examples if e.pole == pole),
                                contrast=tuple(e for e in examples if e.pole != pole),
                                promoted=tuple(token for token, _ in lens),
                            )

                results = list(
                    tqdm(
                        label_poles(
                            evidences(), background, settings, cache_dir=run.folder / "cache"
                        ),
                        "labels",
                        total=2 * len(rows),
                        unit=" poles",
                        delay=1,
                        disable=None,
                    )
                )
        with RunStore(run.database_path, read_only=False) as store:
            store.replace_labels(results, fingerprint=wanted)
        labels = [item for item in results if isinstance(item, Label)]
        failures = [item for item in results if isinstance(item, LabelFailure)]
        summary = _label_summary(labels, failures)
        record_stage(run.folder, "labels", wanted, cost, summary)
    return summary


def _refresh_facts(run: Run) -> None:
    """Brings the title and the settings in the database up to date with the run's."""
    from builder.store import RunStore

    wanted = json.loads(json.dumps(changeable_facts(run.settings)))
    with RunStore(run.database_path) as store:
        meta = store.meta()
    if any(meta.get(key) != value for key, value in wanted.items()):
        with RunStore(run.database_path, read_only=False) as store:
            store.update_meta(wanted)


def add_to_site(runs: Sequence[Path], settings: SiteSettings) -> SiteReport:
    """The site of these run folders and of those beside them that it holds already.

    A model whose run folder is not beside them, or cannot be read, leaves the site; the report's
    warnings say so.
    """
    from builder.store import RunStore

    models = Path(settings.out) / "m"
    names = {item.name for item in models.iterdir()} if models.is_dir() else set()
    beside, lost = [], []
    for name in sorted(names - {folder.name for folder in runs}):
        place = runs[0].parent / name
        try:
            RunStore(place / "run.duckdb").close()
        except StoreError as error:
            lost.append(f"{name} is no longer in {settings.out}: {error}")
        else:
            beside.append(place)
    report = make_site([*beside, *runs], settings)
    return dataclasses.replace(report, warnings=(*lost, *report.warnings))


def make_site(runs: Sequence[Path], settings: SiteSettings) -> SiteReport:
    """A site rendered from these run folders; needs neither model nor network."""
    from builder.pages.site import build_site

    out = Path(settings.out)
    with timed() as cost, disk_errors(out):
        report = build_site(runs, out, settings)
    for folder in runs:
        facts = {"pages": report.pages, "bytes": report.bytes}
        wanted = digest_of(settings.model_dump())
        record_stage(folder, "site", wanted, cost, facts)
    return report


def status(folder: Path) -> dict[str, Any]:
    """What is done in a run folder, from its files alone (the database is not opened).

    ``dropped`` counts the rows and documents that were left out, by reason, so far.
    """
    run = existing_run(folder)
    frozen = read_json(run.corpus_path / "corpus.json") or {}
    shards = [item for item in (folder / "shards").glob("*") if item.suffix != ".part"]
    dropped = Counter(frozen.get("dropped", {}))
    dropped.update(_counted(shards)["dropped"])
    names = ("directions", "corpus", "scan", "merge", "labels", "site")
    return {
        "name": run.settings.name,
        "folder": str(folder),
        "documents": frozen.get("documents"),
        "dropped": dict(dropped),
        "shards": len(frozen["slices"]) if frozen else None,
        "shards_done": len(shards),
        "database_bytes": _size(run.database_path),
        "stages": {name: found for name in names if (found := stage_record(run.folder, name))},
    }


def _plan(run: Run, directions: DirectionSet, frozen: dict[str, Any]) -> tuple[list[Unit], str]:
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


def _scan_units(
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
            scanner = scanner or Scanner(model or _load(run, directions), directions, settings.scan)
            item = frozen["slices"][unit.number]
            documents = read_slice(run.corpus_path / item["name"], item["digest"])
            write_shard(scanner.scan(documents, on_batch), place, settings.scan)

        def on_done(unit: Unit, reused: bool) -> None:
            nonlocal tokens
            tokens += _counted([shards / unit.name])["tokens"].total()
            if reused:
                bar.update(unit.size)
            else:
                record()

        run_units(units, shards, work, on_done)
    if recorded != tokens:
        record()


def _load(run: Run, directions: DirectionSet) -> ScannedModel:
    """The tuned model at the commit that the directions are from, whatever the hub has by now."""
    from builder.activations.model import load_model

    model = run.settings.model
    commits = {
        "tuned_revision": directions.tuned.revision,
        "base_revision": directions.base.revision if directions.base and model.base else None,
    }
    pinned = model.model_copy(update={key: value for key, value in commits.items() if value})
    return load_model(pinned, run.settings.scan)


def _merge(
    run: Run, directions: DirectionSet, units: list[Unit], digest: str, frozen: dict[str, Any]
) -> None:
    from builder.store import RunStore, write_database

    settings = run.settings
    wanted = digest_of(digest, settings.scan.top, settings.scan.reservoir)
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
    record_stage(run.folder, "merge", wanted, cost, {"bytes": _size(run.database_path)})


def _refuse_if_nothing_was_read(run: Run, shards: list[Path]) -> None:
    """Raises CorpusError when the model could be shown none of the documents, and says why."""
    counted = _counted(shards)
    if counted["documents"]:
        return
    reasons = counted["dropped"].most_common()
    why = "; ".join(f"{n} documents: {reason}" for reason, n in reasons)
    raise CorpusError(f"{run.folder}: no document of the corpus could be shown to the model; {why}")


def _counted(shards: Iterable[Path]) -> defaultdict[str, Counter[str]]:
    """What finished shards counted, over all of them: number by name, for each kind of count."""
    from builder.activations.shard_files import read_counts

    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for shard in shards:
        for what, name, n in read_counts(shard):
            counted[what][name] += n
    return counted


def _label_summary(labels: list[Label], failures: list[LabelFailure]) -> dict[str, int]:
    named = sum(label.text is not None for label in labels)
    return {"labelled": named, "no_pattern": len(labels) - named, "failed": len(failures)}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
