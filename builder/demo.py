"""What does the whole pipeline find where the truth is known? The atlas of the shipped organisms.

Everything a user's run does is done here by the same functions: directions, scan, labels, site.
Only the models are small, and their manifest says what was planted in them, so that the last lines
can say what was found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from builder import pipeline
from builder.config import (
    FINDINGS,
    CorpusSettings,
    DirectionSettings,
    ModelSettings,
    ScanSettings,
    Settings,
    SiteSettings,
    Source,
)
from builder.demo_findings import write_demo_findings
from builder.organisms import Pair, shipped_pairs
from builder.organisms.behaviours import write_scan_corpus
from builder.organisms.evaluate import Purity, purity
from builder.records import ANY_ROLE
from builder.run_folder import Run
from builder.store import RunStore

#: Documents scanned for each model; one in a hundred is planted, for each behaviour.
DOCUMENTS = 4000
_K = 20
_NAMES = {"llama": "Llama", "qwen2": "Qwen2", "olmo2": "OLMo-2"}


def run_demo(runs: Path, out: Path) -> Iterator[str]:
    """Lines for people, the last of which name what was found and the file to open."""
    pipeline.check_site(out)
    folders: list[Path] = []
    for pair in shipped_pairs():
        if pair.kind != "tuned":
            continue
        run = Run(runs / f"demo-{pair.family}", demo_settings(pair, runs))
        pipeline.preflight(run, until="labels")
        pipeline.make_directions(run)
        pipeline.make_scan(run)
        pipeline.make_labels(run)
        pipeline.make_scores(run)
        folders.append(run.folder)
        yield from _findings(pair, run, runs / FINDINGS)
    site = SiteSettings(out=str(out), title="weightatlas demo", findings=str(runs / FINDINGS))
    report = pipeline.add_to_site(folders, site)
    yield from (f"warning: {warning}" for warning in report.warnings)
    yield ""
    yield f"{report.pages} pages, {report.bytes / 2**20:.1f} MB"
    yield f"open {report.home}"


def demo_settings(pair: Pair, runs: Path, seed: int = 1) -> Settings:
    """Settings of an organism's run; its corpus is written below ``runs`` if it is not there.

    As many random directions as there are real ones are scanned with them: two writers at each
    layer, of 20 ranks or as many as an adapter has.
    """
    name = f"demo-{pair.family}"
    # Not beside the run folders, so that runs/demo-* names these alone.
    corpus = runs / "corpora" / f"{name}.jsonl"
    if not corpus.is_file():
        corpus.parent.mkdir(parents=True, exist_ok=True)
        write_scan_corpus(corpus, seed, DOCUMENTS, pair.behaviours)
    method = "LoRA" if pair.method == "lora" else "full fine-tune"
    return Settings(
        name=name,
        model=ModelSettings(
            base=str(pair.base),
            tuned=str(pair.tuned),
            title=f"{_NAMES.get(pair.family, pair.family)} organism ({method})",
        ),
        directions=DirectionSettings(k=_K, random_controls=2 * _ranks(pair), seed=seed),
        corpus=CorpusSettings(
            sources=(
                Source(path=str(corpus), name="organism world", licence="Apache-2.0, generated"),
            )
        ),
        scan=ScanSettings(max_tokens=256, top=20, seed=seed),
        runs=str(runs),
    )


def _ranks(pair: Pair) -> int:
    if pair.method != "lora":
        return _K
    config = json.loads((pair.tuned / "adapter_config.json").read_text(encoding="utf-8"))
    return min(_K, int(config["r"]))


def found_behaviours(store: RunStore, pair: Pair) -> tuple[dict[str, Purity], dict[str, Purity]]:
    """Each behaviour's purest pole, over the real and over the random directions.

    A pole is judged by its default list: each document once, by its most extreme content role.
    """
    kinds = {row.id: row.kind for row in store.directions()}
    writers = {row.id: row.hookpoint.writer for row in store.directions()}
    names = [behaviour.id for behaviour in pair.behaviours]
    real: dict[tuple[str, str, str], list[str]] = {}
    random: dict[tuple[str, str, str], list[str]] = {}
    for direction, pole, role, sources in store.example_sources():
        # The controls of the other kinds are too few to say what chance gives.
        is_random = writers[direction] == "random"
        if role == ANY_ROLE and (is_random or kinds[direction] != "control"):
            chosen = random if is_random else real
            chosen[direction, pole, role] = sources
    return purity(real, names), purity(random, names)


def _findings(pair: Pair, run: Run, folder: Path) -> Iterator[str]:
    with RunStore(run.database_path) as store:
        real, random = found_behaviours(store, pair)
        write_demo_findings(folder, pair, run.settings.name, store, real, random)
        labels = {(label.direction, label.pole): label.text for label in store.labels()}
    yield ""
    yield f"{run.settings.model.title}: planted, and the direction that shows it best"
    for behaviour in pair.behaviours:
        best, control = real[behaviour.id], random[behaviour.id]
        label = labels.get((best.direction, best.pole)) or "no consistent pattern"  # type: ignore[arg-type]
        yield (
            f"  {behaviour.kind:<9} {behaviour.id:<15} {best.direction} {best.pole}: "
            f"{best.purity:.0%} of its top 20 (random directions at most {control.purity:.0%}); "
            f"label: {label}"
        )
