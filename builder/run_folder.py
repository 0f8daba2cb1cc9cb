"""What is a run folder? Its settings, its lock, and what each stage left on record.

What a folder holds was made with certain settings, and others are refused for it. ``run.toml`` is
a recipe that can be run again as it is; ``stages/<stage>.json`` says what a stage depended on
(fingerprint) and what it took (seconds, peak memory). The stages themselves are the pipeline's
business.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from builder.config import HUB_ID, Settings, Source, dump_settings, load_settings
from builder.errors import ConfigError, StoreError, shown
from builder.execute import read_json, run_lock, write_atomically, write_json

#: Settings that change no result beyond rounding, or only what is made anew at every call.
_FREE = (
    "model.title",
    "model.stage",
    "directions.device",
    "scan.batch_tokens",
    "scan.device",
    "compute.",
    "label.",
    "score.",
    "site.",
    "runs",
)
#: What a folder that already holds this file was made with, and cannot be changed in it.
_FIXED_BY = (
    ("directions.safetensors", ("name", "model.", "directions.")),
    ("corpus/corpus.json", ("name", "corpus.", "scan.")),
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder and its settings.

    The last ``added`` sources of its corpus were asked for beyond what the recipe or folder says.
    """

    folder: Path
    settings: Settings
    added: int = 0

    @property
    def directions_path(self) -> Path:
        """The directions file."""
        return self.folder / "directions.safetensors"

    @property
    def database_path(self) -> Path:
        """The run's database."""
        return self.folder / "run.duckdb"

    @property
    def corpus_path(self) -> Path:
        """Folder of the frozen corpus."""
        return self.folder / "corpus"


def read_run(place: Path, overrides: tuple[str, ...] = (), *, add: Sequence[str] = ()) -> Run:
    """The run that a recipe file or an existing run folder stands for; writes nothing.

    ``add`` are further sources of documents (see :func:`with_sources`). Raises ConfigError when the
    run folder was made with other settings.
    """
    if _is_folder(place):
        run = existing_run(place, overrides)
        if not any(item.strip().startswith("corpus.sources") for item in overrides):
            run = _with_frozen(run)
    else:
        settings = load_settings(place, overrides)
        run = Run(Path(settings.runs) / settings.name, settings)
    return checked_run(with_sources(run, add))


def existing_run(folder: Path, overrides: tuple[str, ...] = ()) -> Run:
    """The run in a run folder; raises ConfigError if it is none."""
    if not (folder / "run.toml").is_file():
        raise ConfigError(f"{folder}: is no run folder (it has no run.toml)")
    return Run(folder, load_settings(folder / "run.toml", overrides))


def is_run_folder(place: Path) -> bool:
    """Whether a run's settings are there; raises ConfigError for what can be no folder."""
    return _is_folder(place) and (place / "run.toml").is_file()


def _is_folder(place: Path) -> bool:
    try:
        return place.is_dir()
    except (OSError, ValueError) as error:  # a name too long for the system, or with a NUL
        raise ConfigError(
            f"{shown(str(place))!r}: no such recipe or run folder: {error}"
        ) from error


def checked_run(run: Run) -> Run:
    """The run itself; raises ConfigError if its folder holds results of other settings."""
    existing = run.folder / "run.toml"
    fixed = tuple(key for file, keys in _FIXED_BY if (run.folder / file).is_file() for key in keys)
    if not existing.is_file() or not fixed:
        return run
    before = _flat(load_settings(existing).model_dump(mode="json"))
    now = _flat(run.settings.model_dump(mode="json"))
    frozen = [source for part in frozen_sources(run.folder) for source in part]
    if frozen:
        # What was frozen counts, not what was asked for; further sources may follow it.
        before = _with_sources(before, frozen)
        now = _with_sources(now, run.settings.corpus.sources[: len(frozen)])
    changed = [
        f"  {key}: {before.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key.startswith(fixed) and not key.startswith(_FREE)
    ]
    for key in before:
        # A relative name is resolved only where it leads somewhere, so it differs once it does not.
        was, name = str(before[key] or ""), str(now.get(key) or "")
        if was != name and name and was.endswith(f"/{name}") and not Path(was).exists():
            raise ConfigError(
                f"{was}: is not there any more ({key}); {run.folder} was made from it"
            )
    asked = run.settings.corpus.sources
    if frozen and len(asked) < len(frozen) and asked == tuple(frozen[: len(asked)]):
        raise ConfigError(
            f"{run.folder}: sources were added to its corpus; give the run folder in place of the "
            "recipe, or put them into the recipe too (run.toml there has them)"
        )
    if changed:
        raise ConfigError(
            f"{run.folder} was made with other settings:\n"
            + "\n".join(changed)
            + "\nuse another name, or delete the folder to start anew"
        )
    return run


def changed_settings(one: Settings, two: Settings) -> list[tuple[str, Any, Any]]:
    """(dotted name, value, other value) of settings that differ and may change a result."""
    left, right = (_flat(item.model_dump(mode="json")) for item in (one, two))
    return [
        (key, left.get(key), right.get(key))
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key) and not key.startswith(_FREE)
    ]


def frozen_sources(folder: Path) -> list[tuple[Source, ...]]:
    """The sources of each part of a run folder's frozen corpus; empty if there is none.

    Raises StoreError when the corpus says nothing of the kind that can be understood.
    """
    frozen = read_json(folder / "corpus" / "corpus.json")
    parts = frozen.get("parts") if isinstance(frozen, dict) else None
    if not isinstance(parts, list):
        return []  # of an older form, or damaged: freezing it refuses
    try:
        return [tuple(Source.model_validate(item) for item in part["sources"]) for part in parts]
    except (ValidationError, KeyError, TypeError) as error:
        raise StoreError(
            f"{folder / 'corpus'}: is damaged; delete the run folder to start anew"
        ) from error


def with_sources(run: Run, names: Sequence[str]) -> Run:
    """The run with further sources: files, folders, patterns, else names of data sets.

    One that is a source of the run already is not added again, so that a command can be repeated.
    """
    sources = list(run.settings.corpus.sources)
    before = len(sources)
    for name in names:
        source = _source(name)
        if _resolved(source) not in map(_resolved, sources):
            sources.append(source)
    return Run(run.folder, _of_sources(run.settings, sources), run.added + len(sources) - before)


def _with_frozen(run: Run) -> Run:
    """The run of a folder, with what was frozen just before a process was killed."""
    asked = run.settings.corpus.sources
    frozen = tuple(source for part in frozen_sources(run.folder) for source in part)
    if len(asked) < len(frozen) and asked == frozen[: len(asked)]:
        return Run(run.folder, _of_sources(run.settings, frozen))
    return run


def _of_sources(settings: Settings, sources: Sequence[Source]) -> Settings:
    corpus = settings.corpus.model_copy(update={"sources": tuple(sources)})
    return settings.model_copy(update={"corpus": corpus})


def _resolved(source: Source) -> Source:
    """The source under the one spelling of its path, to compare it by."""
    try:
        place = str(Path(source.path).expanduser().resolve()) if source.path else ""
    except (OSError, RuntimeError, ValueError):  # no path
        return source
    return source.model_copy(update={"path": place})


def _source(name: str) -> Source:
    try:
        is_place = Path(name).expanduser().exists() or bool(glob.glob(name, recursive=True))  # noqa: PTH207 - absolute patterns
    except (OSError, RuntimeError, ValueError):  # no path
        is_place = False
    # A name that no data set can have is a path too, for the message that it is not there.
    if is_place or not HUB_ID.fullmatch(name) or name.endswith((".jsonl", ".json", ".parquet")):
        return Source(path=str(Path(name).expanduser().absolute()))
    return Source(dataset=name)


@contextlib.contextmanager
def claimed(run: Run) -> Iterator[None]:
    """Holds the run folder and makes sure that its ``run.toml`` says how it is made.

    What a killed process left half-written beside it and beside the stages' records is removed.
    """
    with run_lock(run.folder):
        for leftover in (*run.folder.glob("*.toml.part"), *run.folder.glob("stages/*.part")):
            leftover.unlink(missing_ok=True)
        write_settings(run)
        yield


def write_settings(run: Run) -> None:
    """Puts the settings into ``run.toml``; sources that are added only once they are frozen.

    So a source that turns out to be of no use does not stay with the run.
    """
    sources = run.settings.corpus.sources
    frozen = tuple(source for part in frozen_sources(run.folder) for source in part)
    kept = sources[: len(sources) - run.added]
    if frozen and sources[: len(frozen)] == frozen:
        kept = frozen
    text = dump_settings(_of_sources(run.settings, kept))
    path = run.folder / "run.toml"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


@dataclass(slots=True)
class Cost:
    """What a stage took: wall-clock seconds, and the peak memory of a process at its end in MB."""

    seconds: float = 0.0
    peak_mb: int = 0


@contextlib.contextmanager
def timed() -> Iterator[Cost]:
    """A Cost that is filled in when the block ends."""
    cost = Cost()
    start = time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - start
    cost.peak_mb = peak_memory_mb()


def peak_memory_mb() -> int:
    """The most memory that this process, or one that it started and that has ended, held, in MB."""
    # ru_maxrss counts kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(which).ru_maxrss for which in who) * unit // 2**20


def record_stage(
    folder: Path, stage: str, fingerprint: str, cost: Cost, facts: Mapping[str, object]
) -> None:
    """Puts a finished stage on record."""
    (folder / "stages").mkdir(exist_ok=True)
    values = {
        "fingerprint": fingerprint,
        "seconds": round(cost.seconds, 2),
        "peak_memory_mb": cost.peak_mb,
        **facts,
    }
    write_json(folder / "stages" / f"{stage}.json", values)


def stage_record(folder: Path, name: str) -> dict[str, Any] | None:
    """What :func:`record_stage` wrote for a stage, None if it has not finished."""
    path = folder / "stages" / f"{name}.json"
    found = read_json(path)
    if found is not None and not isinstance(found, dict):
        raise StoreError(f"{path}: is damaged; delete it and run again")
    return found or None


def _with_sources(settings: dict[str, Any], sources: Sequence[Source]) -> dict[str, Any]:
    kept = {key: value for key, value in settings.items() if not key.startswith("corpus.sources")}
    return kept | _flat([source.model_dump(mode="json") for source in sources], "corpus.sources.")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {
            k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()
        }
    if isinstance(value, list) and value:
        return {
            k: v
            for number, item in enumerate(value)
            for k, v in _flat(item, f"{prefix}{number}.").items()
        }
    return {prefix.rstrip("."): value}


def digest_of(*values: Any) -> str:
    """32 hex digits that follow the values' JSON."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
