"""Where does a run come from? Digests of what it was made of, and what it says of that in public.

The database is published with the site. What it says holds no clock times, no absolute paths, no
user and no host names: a local file or folder goes by its own name alone.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import re
from pathlib import Path
from typing import Any

import xxhash
from tqdm import tqdm

from builder import __version__
from builder.config import Settings, public_name
from builder.endpoint.access import Access
from builder.errors import CheckpointError, ConfigError, StoreError
from builder.execute import read_json, write_json
from builder.records import DirectionSet, ModelRef
from builder.run_folder import Run, digest_of

#: Files of a model folder that weights, configuration, tokenizer or chat template are read from.
_READ = re.compile(
    r"\.safetensors$|\.safetensors\.index\.json$|^pytorch_model.*\.bin$|^adapter_model\.bin$"
    r"|^(adapter_)?config\.json$|token|vocab|merges|\.jinja$|^chat_template|\.tiktoken$|\.model$"
)
_PACKAGES = ("torch", "transformers", "duckdb", "numpy", "tokenizers")


def model_stamps(run: Run, *, keep: bool = False) -> dict[str, list[list[str]]]:
    """Names and digests of the files of the local models ``tuned`` and ``base``.

    None for a model of a hub, whose commit says as much. Files that nothing reads (cards, logs,
    optimizer states) do not count. A file is read again only when its size or time of change is not
    what it was when its digest was kept, for which the run folder has to be claimed.
    """
    files = _read_files(run.settings)
    sizes = {file: file.stat() for listed in files.values() for file in listed}
    place = run.folder / "stages" / "models.json"
    known = _known(place)
    seen: dict[str, list[Any]] = {}
    with tqdm(
        desc="model check",
        total=sum(stat.st_size for stat in sizes.values()),
        unit="B",
        unit_scale=True,
        delay=1,
        disable=None,
    ) as bar:
        for file, stat in sizes.items():
            key, facts = str(file.resolve()), [stat.st_size, stat.st_mtime_ns]
            kept = _kept_digest(known, file, stat)
            seen[key] = [*facts, _digest_of(file, *facts) if kept is None else kept]
            bar.update(stat.st_size)
    if keep and seen != known:
        place.parent.mkdir(exist_ok=True)
        write_json(place, seen)
    return {
        which: [[file.name, seen[str(file.resolve())][2]] for file in listed]
        for which, listed in files.items()
    }


def unseen_bytes(run: Run) -> int:
    """Bytes of the local files that :func:`model_stamps` would have to read."""
    known = _known(run.folder / "stages" / "models.json")
    files = {file for listed in _read_files(run.settings).values() for file in listed}
    sizes = {str(file.resolve()): (file, file.stat()) for file in files}
    return sum(
        stat.st_size for file, stat in sizes.values() if _kept_digest(known, file, stat) is None
    )


def _kept_digest(known: dict[str, Any], file: Path, stat: os.stat_result) -> Any:
    """The digest that was kept of a file as it is now; None if there is none."""
    before = known.get(str(file.resolve()))
    same = isinstance(before, list) and before[:2] == [stat.st_size, stat.st_mtime_ns]
    return before[2] if same and before else None


def _read_files(settings: Settings) -> dict[str, list[Path]]:
    """Files of the local folders that the two models are read from; the hub is not asked.

    ``tuned``: of that folder; ``base``: of the base and of what adapters go on, and the card that
    names the base where nothing else does.
    """
    from builder.weights.pair import Finder

    model = settings.model
    tuned = Path(model.tuned).expanduser()
    given = [Path(name).expanduser() for name in (model.base, model.adapter_base) if name]
    cards: list[Path] = []
    if settings.directions.method != "raw":
        finder = Finder(model, ask_hub=False)
        try:
            side = finder.tuned()
            base = finder.base(side)
        except (CheckpointError, ConfigError):  # on the hub and not here yet, or to be refused
            pass
        else:
            given = [place.folder for place in (*base.places, *side.places) if not place.revision]
        if not model.base and not (tuned / "adapter_config.json").is_file():
            cards = [card for card in [tuned / "README.md"] if card.is_file()]
    bases = dict.fromkeys(folder for folder in given if folder != tuned)
    return {
        "tuned": _files(tuned),
        "base": [*(file for folder in bases for file in _files(folder)), *cards],
    }


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [f for f in sorted(folder.iterdir()) if _READ.search(f.name) and f.is_file()]


def _known(place: Path) -> dict[str, Any]:
    try:
        known = read_json(place)
    except StoreError:  # it saves reading and holds nothing else
        return {}
    return known if isinstance(known, dict) else {}


@functools.cache
def _digest_of(path: Path, _size: int, _changed: int) -> str:
    """Digest of a file's bytes; size and time of change tell one state of it from another."""
    with path.open("rb") as stream:
        state = xxhash.xxh3_128()
        while block := stream.read(2**20):
            state.update(block)
    return state.hexdigest()


def public_facts(run: Run, directions: DirectionSet, frozen: dict[str, Any]) -> dict[str, Any]:
    """What the database says of itself. No clock times and no absolute paths: it is published."""
    settings = run.settings
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "name": settings.name,
        **changeable_facts(settings),
        "model": {
            "kind": directions.tuned.kind,
            "base": _model_fact(directions.base),
            "tuned": _model_fact(directions.tuned),
        },
        "method": directions.method,
        "d_model": directions.d_model,
        "n_layers": directions.n_layers,
        "facts": directions.facts,
        "corpus": {
            "fingerprint": digest_of(
                [item["digest"] for part in frozen["parts"] for item in part["slices"]]
            ),
            "documents": sum(part["documents"] for part in frozen["parts"]),
            "sources": [
                {
                    "name": source.name or public_name(source.path or source.dataset),
                    "licence": source.licence,
                    "where": public_name(source.path or source.dataset),
                }
                for source in settings.corpus.sources
            ],
        },
        "versions": {"weightatlas": __version__, **versions},
    }


def changeable_facts(settings: Settings) -> dict[str, Any]:
    """The facts that may change while a database stands: title, and settings of labels and site."""
    return {
        "title": settings.model.title or public_name(settings.model.tuned),
        "settings": public_settings(settings),
    }


def refresh_facts(run: Run) -> None:
    """Brings the title and the settings in the database up to date with the run's."""
    from builder.store import RunStore

    wanted = json.loads(json.dumps(changeable_facts(run.settings)))
    with RunStore(run.database_path) as store:
        meta = store.meta()
    if any(meta.get(key) != value for key, value in wanted.items()):
        with RunStore(run.database_path, read_only=False) as store:
            store.update_meta(wanted)


def _model_fact(model: ModelRef | None) -> dict[str, str | None] | None:
    return {"path": public_name(model.path), "revision": model.revision} if model else None


def public_settings(settings: Settings) -> dict[str, Any]:
    """The settings as the database and the site show them: all that decides a result."""
    values = settings.model_dump(
        mode="json", exclude={"runs": True, "compute": True, "site": {"out"}}
    )
    for key in ("base", "tuned", "adapter_base"):
        values["model"][key] = public_name(values["model"][key]) if values["model"][key] else ""
    for source in values["corpus"]["sources"]:
        for key in ("path", "dataset"):
            source[key] = public_name(source[key]) if source[key] else ""
    # Where an endpoint is says nothing of the labels, and may say much of a network.
    del values["label"]["base_url"], values["score"]["base_url"]
    # Servers of local models name them by their folder.
    for section, model in (("label", settings.label.model), ("score", settings.score.model)):
        values[section]["model"] = Access(model).public_model
    for key in ("budget", "price_input", "price_output"):
        del values["label"][key]
    # None changes a result beyond rounding, and they may differ between the parts of a resumed run.
    for section, key in (("directions", "device"), ("scan", "batch_tokens"), ("scan", "device")):
        del values[section][key]
    return values
