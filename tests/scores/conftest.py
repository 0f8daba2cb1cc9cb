"""The shipped organisms, scanned, labelled and scored by the stages, for all that needs a truth."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from builder import pipeline
from builder.demo import demo_settings
from builder.organisms import Pair, shipped_pairs
from builder.organisms.behaviours import write_scan_corpus
from builder.records import Pole, Score, Scorer
from builder.run_folder import Run
from builder.score_stage import make_scores
from builder.scores.items import Pool
from builder.scores.model_judge import ModelJudge
from builder.scores.pools import pole_pools
from builder.store import RunStore
from tests.scores.knowing import ONE_IN, known_labels, known_verdicts

#: Documents scanned: as many planted ones as in the demo, two for each place of a list.
DOCUMENTS = 40 * ONE_IN
#: The organisms that ship with the package.
FAMILIES = ("llama", "qwen2", "olmo2")

Key = tuple[str, Scorer, str, Pole]


@dataclass(frozen=True)
class Organism:
    """A scanned run whose planted behaviours are known, and the texts of all its poles.

    ``scores``, by labeler, scorer and pole, are what the stage gave labels whose worth is known;
    ``scores_of_all`` are the same with every random text judged.
    """

    run: Run
    pair: Pair
    store: RunStore
    pools: tuple[Pool, ...]
    scores: dict[Key, Score]
    scores_of_all: dict[Key, Score]


@pytest.fixture(scope="session", params=FAMILIES)
def organism(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Organism]:
    pair = next(p for p in shipped_pairs() if p.kind == "tuned" and p.family == request.param)
    # Made once for all processes of a session, whose folders lie beside each other.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    runs = shared / f"organism-{pair.family}"
    with FileLock(f"{runs}.lock"):
        if not (runs / "whole").exists():
            shutil.rmtree(runs, ignore_errors=True)
            runs.mkdir()
            _make(pair, runs)
            (runs / "whole").touch()
    with RunStore(runs / "few.duckdb") as store:
        few = _scores(store)
    run = _run(pair, runs)
    with RunStore(run.database_path) as store:
        pools = tuple(pole_pools(store, [row.id for row in store.directions()]))
        yield Organism(run, pair, store, pools, few, _scores(store))


def _run(pair: Pair, runs: Path) -> Run:
    settings = demo_settings(pair, runs)
    directions = settings.directions.model_copy(update={"k": 8, "random_controls": 2})
    return Run(runs / "run", settings.model_copy(update={"directions": directions}))


def _make(pair: Pair, runs: Path) -> None:
    """Scans an organism and scores labels whose worth is known, twice: see :class:`Organism`."""
    corpus = Path(runs / f"demo-{pair.family}.jsonl")
    write_scan_corpus(corpus, 0, DOCUMENTS, pair.behaviours, fraction=1 / ONE_IN)
    run = _run(pair, runs)
    pipeline.make_scan(run)
    with RunStore(run.database_path, read_only=False) as store:
        store.replace_labels(list(known_labels(store, pair)), fingerprint="known")
    _score(run, run.settings.score.random)
    shutil.copy(run.database_path, runs / "few.duckdb")
    _score(run, 10**6)


def _score(run: Run, random: int) -> None:
    """Has the stage score with so many random texts, and a judge that knows."""
    label = run.settings.label.model_copy(update={"labeler": "openai", "model": "one-who-knows"})
    score = run.settings.score.model_copy(update={"random": random})
    settings = run.settings.model_copy(update={"label": label, "score": score})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "never-sent")
        patch.setattr(ModelJudge, "judge", known_verdicts)
        summary = make_scores(dataclasses.replace(run, settings=settings))
    assert summary["scored"]


def _scores(store: RunStore) -> dict[Key, Score]:
    return {
        (item.labeler, item.scorer, item.direction, item.pole): item
        for item in store.scores(judged=True, candidates=True)
    }
