"""How do runs of one model over different corpora become one? Without the model or the sources.

The new run holds the parts of the first run's corpus, then those of the second that the first has
not, and their finished shards, as links to the same files. Shards depend on their slice alone, so
none is scanned again. Joining is associative, and joining a run with itself changes nothing (see
also :mod:`builder.joined_corpus`).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.config import CorpusSettings, Settings, Source, parse_settings
from builder.errors import ConfigError, StoreError
from builder.execute import Unit, check_units, disk_errors, is_held, read_json, run_lock, write_json
from builder.joined_corpus import JoinedCorpus, link, link_folder
from builder.merge_stage import merge_shards
from builder.records import DirectionSet
from builder.run_folder import (
    Run,
    changed_settings,
    claimed,
    digest_of,
    existing_run,
    is_run_folder,
    record_stage,
    timed,
)
from builder.scan_progress import record_joined
from builder.scan_stage import counted

if TYPE_CHECKING:
    #: A part of a corpus with the run and the units that it is taken from.
    Origin = tuple[dict[str, Any], "_Finished", tuple[Unit, ...]]

#: What the first run's folder holds beside corpus, shards and settings.
_TAKEN = (
    "directions.safetensors",
    "spectra.parquet",
    "stages/directions.json",
    "stages/models.json",
)
#: Settings that decide what a shard holds, or how its documents were frozen.
_SAME = ("corpus.", "scan.")
#: Differences that a refusal names.
_FEW = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Finished:
    """A run whose scan is done: its directions, the parts of its corpus, and a unit per slice."""

    run: Run
    directions: DirectionSet
    parts: tuple[dict[str, Any], ...]
    units: tuple[Unit, ...]

    def own_units(self, part: int) -> tuple[Unit, ...]:
        """The units of one part."""
        before = sum(len(item["slices"]) for item in self.parts[:part])
        return self.units[before : before + len(self.parts[part]["slices"])]


def join_runs(folders: Sequence[Path], out: Path) -> Path:
    """The database of the run ``out``, which joins these runs of one model.

    If ``out`` is there, it must be just that, as a killed process left it. Raises ConfigError when
    the runs do not fit together or one is not finished, StoreError when something of them cannot be
    read or ``out`` not be written.
    """
    if len(folders) < 2:
        raise ConfigError("merge: give at least two run folders")
    beside = out.with_name(out.name + ".part")
    with ExitStack() as held:
        for folder in dict.fromkeys(folder.resolve() for folder in folders):
            if not is_run_folder(folder):
                raise ConfigError(f"{folder}: is no run folder (it has no run.toml)")
            if folder in (out.resolve(), *out.resolve().parents):
                raise ConfigError(
                    f"{out}: lies in {folder}, a run that is to be joined; give a folder of its "
                    "own with -o"
                )
            held.enter_context(run_lock(folder))
        runs = [_finished(existing_run(folder)) for folder in folders]
        for other in runs[1:]:
            _refuse_if_different(runs[0], other)
        if out.exists():
            return _finish_joined(runs, out)
        settings = _joined_settings(runs, out)
        try:
            if is_held(beside):
                raise StoreError(f"{beside}: another weightatlas process is working here")
            shutil.rmtree(beside, ignore_errors=True)
            with disk_errors(out.parent):
                try:
                    beside.mkdir(parents=True)
                except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
                    # Below a file, or below what only looks like a folder, such as /proc.
                    raise StoreError(f"{out}: cannot be made: {error.strerror}") from error
                _write(runs, Run(beside, settings))
                beside.rename(out)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    return Run(out, settings).database_path


def _finished(run: Run) -> _Finished:
    from builder.weights.directions import load_directions

    frozen = read_json(run.corpus_path / "corpus.json")
    if not run.directions_path.is_file() or not isinstance(frozen, dict):
        raise ConfigError(
            f"{run.folder}: nothing is scanned yet; run `weightatlas scan {run.folder}` first"
        )
    if not isinstance(frozen.get("parts"), list):
        raise StoreError(f"{run.corpus_path}: is damaged; delete the run folder to start anew")
    parts = tuple(frozen["parts"])
    slices = [item for part in parts for item in part["slices"]]
    units = []
    for number, item in enumerate(slices):
        found = sorted((run.folder / "shards").glob(f"{number:06d}-*[0-9a-f]"))
        if len(found) != 1:
            raise ConfigError(
                f"{run.folder}: shard {number} of {len(slices)} is not there just once, so its "
                f"scan is not finished; run `weightatlas scan {run.folder}` first"
            )
        units.append(Unit(number, found[0].name.partition("-")[2], item["documents"]))
    return _Finished(run, load_directions(run.directions_path), parts, tuple(units))


def _finish_joined(runs: Sequence[_Finished], out: Path) -> Path:
    """The database of a run that is there and joins just these; others are a ConfigError."""
    refusal = (
        f"{out}: is there already, and does not join just these runs; give a new folder with -o"
    )
    try:
        found = _finished(existing_run(out))
    except ConfigError as error:
        raise ConfigError(refusal) from error
    if _contents([found]) != _contents(runs) or _differences(runs[0], found):
        raise ConfigError(refusal)
    with claimed(found.run):
        origins = [found.run.folder / "shards" / unit.name for unit in found.units]
        _merge(found.run, runs[0].directions, found.units, origins, {"parts": list(found.parts)})
    return found.run.database_path


def _contents(runs: Sequence[_Finished]) -> list[Any]:
    """What the join of these runs holds: each part, and what its shards depend on."""
    return [
        (key, [unit.fingerprint for unit in own]) for key, (_, _, own) in _parts_of(runs).items()
    ]


def _differences(one: _Finished, two: _Finished) -> list[str]:
    return [
        *_different_directions(one.directions, two.directions),
        *_different_files(one.run, two.run),
        *_different_settings(one.run.settings, two.run.settings),
    ]


def _refuse_if_different(one: _Finished, two: _Finished) -> None:
    """Raises ConfigError with the first differences if the runs are not of one model and scan."""
    faults = _differences(one, two)
    if faults:
        more = [f"and {len(faults) - _FEW} more differences"] if len(faults) > _FEW else []
        raise ConfigError(
            "\n  ".join(
                [
                    f"{one.run.folder} and {two.run.folder} cannot be joined:",
                    *faults[:_FEW],
                    *more,
                    "only scans of one model, with the same directions and settings, can be",
                ]
            )
        )


def _different_directions(one: DirectionSet, two: DirectionSet) -> Iterator[str]:
    if len(one.directions) != len(two.directions):
        yield f"{len(one.directions)} directions there, {len(two.directions)} here"
        return
    for left, right in zip(one.directions, two.directions, strict=True):
        if (left.id, left.content_hash) != (right.id, right.content_hash):
            yield (
                f"direction {left.id} ({left.content_hash}) there, "
                f"{right.id} ({right.content_hash}) here"
            )
        elif left.vector.tobytes() != right.vector.tobytes():
            yield f"direction {left.id}: its vectors differ"
    for name in ("base", "tuned"):
        ours, others = (getattr(item, name) for item in (one, two))
        revisions = [None if item is None else item.revision for item in (ours, others)]
        if revisions[0] != revisions[1]:
            yield f"revision of the {name} model: {revisions[0]} there, {revisions[1]} here"


def _different_files(one: Run, two: Run) -> Iterator[str]:
    """What the local models' files differ in, by the digests that each run kept of them."""
    ours, others = _model_files(one), _model_files(two)
    for name in sorted(ours.keys() | others.keys()):
        if ours.get(name) != others.get(name):
            yield f"model file {name}: not the same bytes in both"


def _model_files(run: Run) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for path, facts in (read_json(run.folder / "stages" / "models.json") or {}).items():
        name = Path(path).name
        if not name.endswith(".md"):  # a card is read for the name of the base alone
            found.setdefault(name, Counter())[str(facts[-1])] += 1
    return found


def _different_settings(one: Settings, two: Settings) -> Iterator[str]:
    """What decides about shards; where the model and the documents lie does not."""
    for key, left, right in changed_settings(one, two):
        if key.startswith(_SAME) and not key.startswith("corpus.sources"):
            yield f"{key}: {left!r} there, {right!r} here"


def _joined_settings(runs: Sequence[_Finished], out: Path) -> Settings:
    sources = [source for part, *_ in _parts_of(runs).values() for source in part["sources"]]
    first = runs[0].run.settings
    corpus = CorpusSettings.model_validate(
        first.corpus.model_dump() | {"sources": [Source.model_validate(item) for item in sources]}
    )
    joined = first.model_copy(update={"name": out.name, "runs": str(out.parent), "corpus": corpus})
    return parse_settings(joined.model_dump(mode="json", exclude_none=True), where=str(out))


def _parts_of(runs: Sequence[_Finished]) -> dict[str, Origin]:
    """Each part once, by the documents it holds, in the order of the runs.

    What its notes say of them depends on the parts before it in its run: those of the first run
    that has it are taken. A part that one run holds twice is two.
    """
    found: dict[str, Origin] = {}
    for item in runs:
        seen: Counter[str] = Counter()
        for index, part in enumerate(item.parts):
            documents = digest_of([one["digest"] for one in part["slices"]])
            seen[documents] += 1
            key = digest_of(documents, seen[documents])
            found.setdefault(key, (part, item, item.own_units(index)))
    return found


def _write(runs: Sequence[_Finished], run: Run) -> None:
    """Fills the folder of the joined run."""
    with claimed(run):
        with timed() as cost:
            units = _fill(runs, run)
        counts = counted(run.folder / "shards" / unit.name for unit in units)
        digest = digest_of([unit.name for unit in units])
        record_joined(run.folder, digest, units, counts)
        facts = {"runs": len(runs), "tokens": counts["tokens"].total()}
        record_stage(run.folder, "join", digest, cost, facts)


def _fill(runs: Sequence[_Finished], run: Run) -> list[Unit]:
    """Links the files of the joined run and writes its database; returns its shards."""
    first = runs[0].run.folder
    for name in _TAKEN:
        if (first / name).is_file():
            (run.folder / name).parent.mkdir(exist_ok=True)
            link(first / name, run.folder / name)
    run.corpus_path.mkdir()
    (run.folder / "shards").mkdir()
    corpus = JoinedCorpus(run.corpus_path)
    units: list[Unit] = []
    origins: list[Path] = []
    for part, owner, own in _parts_of(runs).values():
        for unit in own:
            new = Unit(len(units), unit.fingerprint, unit.size, len(corpus.parts))
            units.append(new)
            origins.append(owner.run.folder / "shards" / unit.name)
            link_folder(origins[-1], run.folder / "shards" / new.name)
        corpus.add(part, owner.run.corpus_path)
    frozen = {"parts": corpus.parts}
    write_json(run.corpus_path / "corpus.json", frozen)
    _merge(run, runs[0].directions, units, origins, frozen)
    return units


def _merge(
    run: Run,
    directions: DirectionSet,
    units: Sequence[Unit],
    origins: Sequence[Path],
    frozen: dict[str, Any],
) -> None:
    """Checks the shards, which are those in ``origins``, and merges them into the database."""
    checked = check_units(units, run.folder / "shards")
    if checked.missing:
        where = origins[checked.missing[0].number]
        raise StoreError(
            f"{where}: is damaged; run `weightatlas scan {where.parent.parent}` to scan it "
            "again, then merge"
        )
    merge_shards(run, directions, units, digest_of([unit.name for unit in units]), frozen)
