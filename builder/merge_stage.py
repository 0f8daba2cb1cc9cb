"""How do a run's finished shards become its database? Anew, unless it holds just these."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from builder.errors import CorpusError
from builder.execute import Unit
from builder.provenance import public_facts
from builder.records import Direction, DirectionSet, Spectrum
from builder.run_folder import Run, digest_of, record_stage, timed
from builder.scan_stage import counted


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
