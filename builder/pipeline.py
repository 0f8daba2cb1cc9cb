"""In which order is the work done? One short function a stage, each resumable.

Every stage checks by fingerprint whether its result is already there and does nothing if so.
Results appear whole or not at all, so a run that was killed anywhere goes on when the same command
is given again. What a stage took (seconds, peak memory) stands in ``stages/`` in the run folder.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.comparison import compare_runs
from builder.config import SiteSettings
from builder.corpus_stage import check_corpus, freeze_corpus
from builder.errors import ConfigError, StoreError
from builder.execute import InProcess, count_finished, disk_errors, is_held, read_json
from builder.merge_stage import merge_shards
from builder.provenance import model_stamps, unseen_bytes
from builder.records import DirectionSet, Spectrum
from builder.run_folder import (
    Run,
    claimed,
    digest_of,
    existing_run,
    record_stage,
    stage_record,
    timed,
)
from builder.scan_stage import plan_units, scan_executor, scan_job, scan_units

if TYPE_CHECKING:
    from builder.endpoint.estimate import Estimate
    from builder.findings.bundle import Import
    from builder.pages.forecast import Forecast
    from builder.pages.site import SiteReport


def build(
    run: Run, *, strict: bool = False, on_forecast: Callable[[Forecast], object] = lambda _: None
) -> SiteReport:
    """The site of one run, after every stage in order; finished stages are skipped.

    ``strict`` and ``on_forecast`` as for :func:`make_site`.
    """
    preflight(run)
    make_directions(run)
    make_scan(run)
    make_labels(run)
    make_scores(run)
    return add_to_site([run.folder], run.settings.site, strict=strict, on_forecast=on_forecast)


#: The stages in order, as :func:`preflight` and the command line name them.
STAGES = ("directions", "scan", "labels", "scores", "site")


def preflight(run: Run, until: str = "site") -> None:
    """Finds what can be known to be wrong before anything is computed or written.

    Looks at what the stages up to ``until`` need. Raises the error that the stage would raise.
    """
    from builder.activations.reading import source_files
    from builder.weights.source import locate

    settings = run.settings
    stages = STAGES[: STAGES.index(until) + 1]
    _usable_folder(Path(settings.runs))
    for name, revision in (
        (settings.model.tuned, settings.model.tuned_revision),
        (settings.model.base, settings.model.base_revision),
        (settings.model.adapter_base, settings.model.adapter_base_revision),
    ):
        if name and (_may_be_here(name) or name.count("/") != 1):
            locate(name, revision)
    for source in settings.corpus.sources:
        if source.path:
            source_files(source)
    if "scan" in stages:
        check_corpus(settings.corpus)
        scan_executor(settings)
        from builder.activations.model import check_model

        check_model(settings.model, settings.scan)
    if "labels" in stages:
        from builder.labels.explain import check_labeler

        check_labeler(settings.label)
    if "scores" in stages:
        from builder.scores.asking import check_judges

        check_judges(settings)
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
    from builder.weights.spectra_file import save_spectra

    settings = run.settings
    stamps = model_stamps(run)
    wanted = digest_of(
        settings.model.model_dump(exclude={"title", "stage"}),
        settings.directions.model_dump(exclude={"device"}),
        [*stamps["tuned"], *stamps["base"]],
    )
    stage = stage_record(run.folder, "directions")
    if run.directions_path.is_file() and (stage or {}).get("fingerprint") == wanted:
        return load_directions(run.directions_path)
    with timed() as cost:
        directions = compute_directions(settings.model, settings.directions)
    with claimed(run), disk_errors(run.folder):
        save_spectra(run.folder / "spectra.parquet", directions)
        save_directions(run.directions_path, directions)
        # Read a moment ago, so nothing is read again; they tell which runs have one base.
        model_stamps(run, keep=True)
        record_stage(
            run.folder, "directions", wanted, cost, {"directions": len(directions.directions)}
        )
    return directions


def plan(run: Run) -> dict[str, Any]:
    """The matrices that taking the directions would read, their bytes, and the memory it takes.

    Reads headers only and writes nothing.
    """
    from builder.weights.plan import plan_directions

    found = plan_directions(run.settings.model, run.settings.directions)
    whole = unseen_bytes(run)
    return {
        "matrices": [
            {
                "key": item.hookpoint.key,
                "module": item.hookpoint.module,
                "shape": list(item.shape),
                "bytes": item.bytes,
            }
            for item in found.matrices
        ],
        "bytes": found.bytes,
        "besides": found.besides | ({"telling changed files": whole} if whole else {}),
        "base": found.base,
        "peak_memory_mb": found.peak_memory // 2**20,
        "facts": found.facts,
    }


def spectrum_facts(spectrum: Spectrum) -> dict[str, Any]:
    """A spectrum in plain values, for people and for JSON; None for what is not known."""
    sigmas = [float(sigma) for sigma in spectrum.sigmas]
    first = sigmas[0] if sigmas else 0.0
    values = {
        "frobenius": spectrum.frobenius,
        "stable_rank": spectrum.stable_rank,
        "above_noise": first / spectrum.shuffled_floor if spectrum.shuffled_floor else 0.0,
        "shuffled_floor": spectrum.shuffled_floor,
        "rounding_floor": spectrum.rounding_floor,
        "entropy": spectrum.entropy,
        "concentration": spectrum.concentration,
        "effective_rank": spectrum.effective_rank,
    }
    return {
        "key": spectrum.hookpoint.key,
        "module": spectrum.hookpoint.module,
        "shape": list(spectrum.shape),
        "side": spectrum.side,
        "space": spectrum.space,
        "sigmas": sigmas,
        **{name: None if math.isnan(value) else value for name, value in values.items()},
    }


def make_scan(run: Run) -> Path:
    """The run's database, with every example, histogram and count but no labels yet."""
    check_corpus(run.settings.corpus)
    directions = make_directions(run)
    job, executor = scan_job(run, directions), scan_executor(run.settings)
    with claimed(run):
        # A fault of the model shows before the corpus is read, which may take long.
        if isinstance(executor, InProcess) and not run.corpus_path.is_dir():
            executor.load(job)
        frozen = freeze_corpus(run)
        units, digest = plan_units(run, directions, frozen)
        scan_units(run, job, executor, units, digest, frozen)
        merge_shards(run, directions, units, digest, frozen)
    return run.database_path


def join_runs(folders: Sequence[Path], out: Path) -> Path:
    """The database of a new run that joins scanned runs of one model over different corpora."""
    from builder.join_stage import join_runs

    return join_runs(folders, out)


def make_labels(run: Run, *, retry_failed: bool = False, batch: bool = False) -> dict[str, int]:
    """How many poles have a label, show no pattern, or failed; labels stand in the database."""
    from builder.label_stage import make_labels

    return make_labels(run, retry_failed=retry_failed, batch=batch)


def plan_requests(
    run: Run, *, retry_failed: bool = False, batch: bool = False
) -> dict[str, Estimate | None]:
    """What each step that asks a model would ask, and what that would cost.

    None for what is asked about labels that are not there yet.
    """
    from builder.label_stage import plan_labels, plan_similar

    labels = plan_labels(run, retry_failed=retry_failed, batch=batch)
    # Scores of the labels there are would be told as if they were all.
    is_labelled = labels.kept == labels.requests
    plans: dict[str, Estimate | None] = {"label": labels}
    if run.settings.label.embedding_model:
        plans["similar labels"] = plan_similar(run) if is_labelled else None
    if is_labelled:
        plans["score"] = plan_scores(run, retry_failed=retry_failed, batch=batch)
    else:
        plans["score"] = None
    return plans


def plan_scores(run: Run, *, retry_failed: bool = False, batch: bool = False) -> Estimate | None:
    """What scoring the labels there are would ask; None where there are none to ask about."""
    from builder.score_stage import plan_scores

    return plan_scores(run, retry_failed=retry_failed, batch=batch)


def make_scores(run: Run, *, retry_failed: bool = False, batch: bool = False) -> dict[str, int]:
    """How many poles have a scored label, and what could not be judged; see ``score_stage``."""
    from builder.score_stage import make_scores

    return make_scores(run, retry_failed=retry_failed, batch=batch)


def add_to_site(
    runs: Sequence[Path],
    settings: SiteSettings,
    *,
    strict: bool = False,
    on_forecast: Callable[[Forecast], object] = lambda _: None,
) -> SiteReport:
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
    return make_site(
        [*beside, *runs], settings, warnings=lost, strict=strict, on_forecast=on_forecast
    )


def make_site(
    runs: Sequence[Path],
    settings: SiteSettings,
    *,
    warnings: Sequence[str] = (),
    strict: bool = False,
    on_forecast: Callable[[Forecast], object] = lambda _: None,
) -> SiteReport:
    """A site rendered from these run folders; needs neither model nor network.

    Directions of runs with the same base are compared where the folders hold them. ``warnings``
    are told with those of the site; ``strict`` makes any of them a WarnedError, and nothing of the
    site changes. ``on_forecast`` is told of the size before pages are made.
    """
    from builder.labels.upkeep import refresh_labels
    from builder.pages.site import build_site

    out = Path(settings.out)
    with timed() as cost, disk_errors(out):
        for folder in runs:
            refresh_labels(folder / "run.duckdb")
        found = compare_runs(runs)
        report = build_site(
            runs,
            out,
            settings,
            found.near,
            found.groups,
            on_forecast=on_forecast,
            warnings=(*warnings, *found.faults),
            strict=strict,
        )
    for folder in runs:
        facts = {"pages": report.pages, "bytes": report.bytes}
        wanted = digest_of(settings.model_dump())
        record_stage(folder, "site", wanted, cost, facts)
    return report


def compare(runs: Sequence[Path]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the runs in these folders have in common as plain values, and what was not compared.

    See :func:`builder.pages.compare.summary.summary`. Nothing but their directions files is needed.
    Raises ConfigError for a folder that is not there and where no two runs belong together.
    """
    from builder.pages.compare.summary import summary

    for folder in runs:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such run folder")
    found = compare_runs(list(dict.fromkeys(runs)))
    if not found.groups:
        reasons = "".join(f"\n  {fault}" for fault in found.faults)
        raise ConfigError(
            "no two of these runs can be compared: they need directions.safetensors and one base, "
            "by its commit or the digests of its weights, or the base of one has to be the tuned "
            f"model of another{reasons}"
        )
    return summary(found.groups), found.faults


def missing_furniture(settings: SiteSettings) -> list[str]:
    """What a site with these settings is without, and what would give it that."""
    from builder.pages.beside import missing

    return missing(settings)


def import_findings(bundle: Path, out: Path) -> Import:
    """Puts every finding of an exported file into a file of its own in ``out``.

    See :func:`builder.findings.bundle.import_findings`; no run is read.
    """
    from builder.findings import bundle as bundles

    return bundles.import_findings(bundle, out)


def status(folder: Path) -> dict[str, Any]:
    """What is done in a run folder, from small records alone (the database is not opened).

    While a scan runs it says how far that is, as of its last shard. ``dropped`` counts the rows and
    documents that were left out, by reason, so far; ``running`` says whether a process works here
    now; ``scan`` is None before a scan began (see ``builder/scan_progress.py`` for its keys); the
    stage ``join`` says what a joined run took from others.
    """
    run = existing_run(folder)
    parts = (read_json(run.corpus_path / "corpus.json") or {}).get("parts", [])
    scan = stage_record(folder, "progress")
    dropped = Counter((scan or {}).get("dropped", {}))
    for part in parts:
        dropped.update(part["dropped"])
    names = ("directions", "join", "corpus", "scan", "merge", "labels", "scores", "site")
    return {
        "name": run.settings.name,
        "folder": str(folder),
        "running": is_held(folder),
        "documents": sum(part["documents"] for part in parts) if parts else None,
        "dropped": dict(dropped),
        "shards": sum(len(part["slices"]) for part in parts) if parts else None,
        "shards_done": scan["shards_done"] if scan else count_finished(folder / "shards"),
        "scan": scan,
        "database_bytes": _size(run.database_path),
        "stages": {name: found for name in names if (found := stage_record(run.folder, name))},
    }


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
