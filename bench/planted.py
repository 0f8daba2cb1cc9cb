"""How well do directions show what was planted, against random directions and a null tune?

    weightatlas organisms --out runs/organisms --seed 1 --seed 2 --seed 3 --null qwen2 --null olmo2
    python bench/planted.py runs/organisms

Prints the table of docs/benchmarks.md. The seed of a fine-tune is also the seed of its corpus and
of the random directions. Nothing is chosen after the result: every pair of the manifest is a row.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from builder import pipeline
from builder.demo import demo_settings, found_behaviours
from builder.organisms.evaluate import names
from builder.organisms.manifest import Pair, read_manifest
from builder.run_folder import Run
from builder.store import RunStore


def scanned(pair: Pair, planted: Pair, work: Path) -> Run:
    """A finished scan of ``pair`` over the corpus that holds what ``planted`` was taught."""
    settings = demo_settings(planted, work / f"seed{pair.seed}", seed=pair.seed)
    model = settings.model.model_copy(update={"base": str(pair.base), "tuned": str(pair.tuned)})
    settings = settings.model_copy(update={"model": model, "name": pair.name})
    run = Run(work / f"seed{pair.seed}" / pair.name, settings)
    pipeline.make_scan(run)
    pipeline.make_labels(run)
    return run


def main() -> None:
    """Prints one row per behaviour and seed, as Markdown and as JSON beside the runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("organisms", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/planted"))
    options = parser.parse_args()
    pairs = read_manifest(options.organisms)
    rows = []
    for pair in pairs:
        if pair.kind != "tuned":
            continue
        nulls = [
            other
            for other in pairs
            if other.kind == "null" and other.family == pair.family and other.seed == pair.seed
        ]
        with RunStore(scanned(pair, pair, options.work).database_path) as store:
            real, random = found_behaviours(store, pair)
            labels = {(item.direction, item.pole): item for item in store.labels()}
        null_best: dict[str, float] = {}
        for null in nulls:
            with RunStore(scanned(null, pair, options.work).database_path) as store:
                for name, found in found_behaviours(store, pair)[0].items():
                    null_best[name] = max(found.purity, null_best.get(name, 0.0))
        for behaviour in pair.behaviours:
            best = real[behaviour.id]
            given = next(
                (item.text for key, item in labels.items() if key == (best.direction, best.pole)),
                None,
            )
            text = given or "no consistent pattern"
            rows.append(
                {
                    "family": pair.family,
                    "method": pair.method,
                    "seed": pair.seed,
                    "behaviour": behaviour.id,
                    "kind": behaviour.kind,
                    "direction": f"{best.direction} {best.pole}",
                    "purity": best.purity,
                    "label": text,
                    "label_names_it": names(text, behaviour.words),
                    "random": random[behaviour.id].purity,
                    "null": null_best.get(behaviour.id),
                }
            )
    options.work.mkdir(parents=True, exist_ok=True)
    (options.work / "planted.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    out = sys.stdout
    out.write(
        "| family | seed | behaviour | best direction | purity | label | names it "
        "| best random | best null |\n|---|---:|---|---|---:|---|---|---:|---:|\n"
    )
    for row in rows:
        null_text = "-" if row["null"] is None else f"{row['null']:.0%}"
        label = str(row["label"]).replace("|", "\\|")
        out.write(
            f"| {row['family']} ({row['method']}) | {row['seed']} | {row['behaviour']} "
            f"| {row['direction']} | {row['purity']:.0%} | {label} "
            f"| {'yes' if row['label_names_it'] else 'no'} | {row['random']:.0%} | {null_text} |\n"
        )


if __name__ == "__main__":
    main()
