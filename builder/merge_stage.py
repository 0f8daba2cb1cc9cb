"""How do a run's finished shards become its database? Anew, unless it holds just these."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from builder.errors import CorpusError
from builder.execute import Unit
from builder.provenance import public_facts
from builder.records import Direction, DirectionSet, Spectrum
from builder.run_folder import Run, digest_of, record_stage, timed
from builder.scan_stage import counted

if TYPE_CHECKING:
    from builder.store import Shard


def merge_shards(
    run: Run,
    directions: DirectionSet,
    units: Sequence[Unit],
    digest: str,
    frozen: dict[str, Any],
) -> None:
    """Merges the shards into the run's database, unless it holds just these.

    ``digest`` names all that the shards depend on, ``frozen`` is the value of ``corpus.json``, and
    ``units`` are in the order of its slices.
    """
    from builder.activations.corpus import cluster_sizes
    from builder.store import RunStore, write_database

    parts = frozen["parts"]
    repeated = [part.get("repeated", {}) for part in parts]
    wanted = digest_of(digest, repeated, _described(directions))
    if run.database_path.is_file():
        with RunStore(run.database_path) as store:
            if store.meta().get("scan_fingerprint") == wanted:
                return
    shards = _shards(run, units, parts)
    _refuse_if_nothing_was_read(run, shards)
    with timed() as cost:
        write_database(
            run.database_path,
            directions,
            shards,
            settings=run.settings.scan,
            meta={"scan_fingerprint": wanted, **public_facts(run, directions, frozen)},
            clusters=cluster_sizes(run.corpus_path, frozen),
            counts=[
                *(
                    (what, name, n)
                    for part in parts
                    for what in ("dropped", "noted")
                    for name, n in part[what].items()
                ),
                # Documents that are the first of their cluster in one of several joined runs.
                *(("distinct", source, -n) for found in repeated for source, n in found.items()),
            ],
        )
    record_stage(run.folder, "merge", wanted, cost, {"bytes": run.database_path.stat().st_size})


def _shards(run: Run, units: Sequence[Unit], parts: Sequence[dict[str, Any]]) -> list[Shard]:
    """The units' shards, and what the documents of their part are counted from."""
    from builder.store import Shard

    offsets = [0, *accumulate(part["rows"] for part in parts)]
    owners = [index for index, part in enumerate(parts) for _ in part["slices"]]
    folder = run.folder / "shards"
    return [
        Shard(folder / unit.name, offsets[part]) for unit, part in zip(units, owners, strict=True)
    ]


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


def _refuse_if_nothing_was_read(run: Run, shards: Sequence[Shard]) -> None:
    """Raises CorpusError when the model could be shown none of the documents, and says why."""
    counts = counted(shard.folder for shard in shards)
    if counts["documents"]:
        return
    reasons = counts["dropped"].most_common()
    why = "; ".join(f"{n} documents: {reason}" for reason, n in reasons)
    raise CorpusError(f"{run.folder}: no document of the corpus could be shown to the model; {why}")
