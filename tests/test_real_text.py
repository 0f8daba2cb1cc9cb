"""A model trained on real text, where its folder is at hand: what it was taught is found again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from builder import pipeline
from builder.records import ANY_ROLE
from builder.run_folder import read_run
from builder.store import RunStore

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_image_prompts_of_a_real_fine_tune_fill_a_pole(
    shared_dir: Path, tmp_path: Path
) -> None:
    text = (ROOT / "recipes" / "real-text.toml").read_text(encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text.replace("../../shared", str(shared_dir)), encoding="utf-8")
    overrides = [f"runs='{tmp_path}'", "directions.random_controls=2", "directions.k=5"]
    rows = (1000, 500, 400, 100, 40)
    overrides += [f"corpus.sources.{i}.max_rows={n}" for i, n in enumerate(rows)]
    run = read_run(recipe, tuple(overrides))
    pipeline.make_scan(run)
    with RunStore(run.database_path) as store:
        best = max(
            Counter("YouMind" in source for source in sources)[True] / 20
            for direction, _, role, sources in store.example_sources()
            if role == ANY_ROLE and "random" not in direction
        )
        counts = {(item.what, item.name): item.n for item in store.counts()}
    assert sum(n for (what, _), n in counts.items() if what == "documents") == sum(rows)
    assert best >= 0.8
    assert json.loads((run.folder / "stages" / "scan.json").read_text())["tokens"] > 100_000
