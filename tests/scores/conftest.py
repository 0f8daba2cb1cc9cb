"""One scan of a shipped organism, for all tests that need a truth to be checked against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder import pipeline
from builder.demo import demo_settings
from builder.organisms import Pair, shipped_pairs
from builder.organisms.behaviours import write_scan_corpus
from builder.run_folder import Run
from builder.scores.items import Pool
from builder.scores.pools import pole_pools
from builder.store import RunStore

#: Documents scanned; one in a hundred is planted, for each behaviour.
DOCUMENTS = 2400


@dataclass(frozen=True)
class Organism:
    """A scanned run whose planted behaviours are known, and the texts of all its poles."""

    run: Run
    pair: Pair
    store: RunStore
    pools: tuple[Pool, ...]


@pytest.fixture(scope="session")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organism]:
    runs = tmp_path_factory.mktemp("organism")
    pair = next(p for p in shipped_pairs() if p.kind == "tuned" and p.family == "llama")
    write_scan_corpus(Path(runs / f"demo-{pair.family}.jsonl"), 0, DOCUMENTS, pair.behaviours)
    settings = demo_settings(pair, runs)
    directions = settings.directions.model_copy(update={"k": 8, "random_controls": 2})
    run = Run(runs / "run", settings.model_copy(update={"directions": directions}))
    pipeline.make_scan(run)
    with RunStore(run.database_path) as store:
        pools = tuple(pole_pools(store, [row.id for row in store.directions()]))
        yield Organism(run, pair, store, pools)
