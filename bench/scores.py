"""What do keyword labels reach on the shipped organisms: planted behaviours, real ones, controls?

    OMP_NUM_THREADS=1 weightatlas demo --runs runs
    PYTHONPATH=. python bench/scores.py runs

Prints the tables of docs/benchmarks.md. Every pole of every run counts; nothing is chosen after the
result. A pole without a label counts as 0, as it does for percentiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from builder import pipeline
from builder.demo import found_behaviours
from builder.organisms import Pair, shipped_pairs
from builder.records import POLES, STRATA, Label, Score, Scorer
from builder.run_folder import read_run
from builder.scores.judge import Text, Verdicts
from builder.scores.percentile import control_scores
from builder.scores.pools import pole_pools
from builder.scores.scoring import Plan, score_label
from builder.store import RunStore


class Planted:
    """A judge that knows from the source which behaviour a text was planted for."""

    name = "truth"

    def judge(self, label: str, texts: Iterable[Text], scorer: Scorer) -> Verdicts:
        """Yes where the source is the label."""
        return Verdicts(tuple(float(text.window.source == label) for text in texts))


def kind_of(store: RunStore) -> dict[str, str]:
    """What each direction is: real, or which kind of control."""
    return {
        row.id: row.hookpoint.writer if row.kind == "control" else "real"
        for row in store.directions()
    }


def summary(stores: dict[str, RunStore]) -> None:
    """The distribution of scores by kind of direction."""
    values: dict[tuple[str, str], list[float]] = {}
    better: dict[tuple[str, str], list[bool]] = {}
    for store in stores.values():
        kinds = kind_of(store)
        scores = {(s.direction, s.pole, s.scorer): s for s in store.scores()}
        for direction, kind in kinds.items():
            for pole in POLES:
                for scorer in ("detection", "fuzzing"):
                    score = scores.get((direction, pole, scorer))
                    f1 = score.f1 if score and score.f1 is not None else 0.0
                    values.setdefault((scorer, kind), []).append(f1)
                    chance = score.chance[1] if score and score.chance else 0.0
                    better.setdefault((scorer, kind), []).append(f1 > chance)
    print("| scorer | directions | poles | labelled | F1 median | 90% | 97.5% | above chance |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for key in sorted(values):
        low, high, top = np.quantile(values[key], [0.5, 0.9, 0.975]).tolist()
        named = sum(
            (label.text is not None) and kind_of(store)[label.direction] == key[1]
            for store in stores.values()
            for label in store.labels()
        )
        print(
            f"| {key[0]} | {key[1]} | {len(values[key])} | {named} | {low:.2f} | {high:.2f} "
            f"| {top:.2f} | {np.mean(better[key]):.0%} |"
        )


def behaviours(stores: dict[str, RunStore], pairs: dict[str, Pair]) -> None:
    """The pole that shows each planted behaviour best, by its keyword label and by the truth."""
    print("| organism | behaviour | pole | purity | keyword label | F1, detection | percentile "
          "| fuzzing | F1 of the truth | of positives planted | of negatives |")  # fmt: skip
    print("|---|---|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for family, store in stores.items():
        controls = [row.id for row in store.directions() if row.kind == "control"]
        labels, scores = store.labels(), store.scores()
        controlled = control_scores(scores, labels, store.label_failures(), controls)
        best, _ = found_behaviours(store, pairs[family])
        for found in best.values():
            own: dict[str, Score] = {
                s.scorer: s
                for s in scores
                if (s.direction, s.pole) == (found.direction, found.pole)
            }
            text = next(
                (x.text for x in labels if (x.direction, x.pole) == (found.direction, found.pole)),
                None,
            )
            detection = own.get("detection")
            share = None
            if detection and detection.f1 is not None:
                share = controlled["keywords", "detection"].better_than(detection.f1)
            known = truth(store, found.direction, found.pole, found.behaviour)
            print(
                f"| {family} | {found.behaviour} | {found.direction} {found.pole} "
                f"| {found.purity:.0%} | {text or 'no consistent pattern'} "
                f"| {shown(detection)} | {'' if share is None else f'{share:.0%}'} "
                f"| {shown(own.get('fuzzing'))} "
                f"| {shown(known)} | {planted(known, True)} | {planted(known, False)} |"
            )


def truth(store: RunStore, direction: str, pole: str, behaviour: str) -> Score:
    """The score that a label would have that fits the planted documents and no other."""
    plan = Plan({"detection": Planted()}, {"detection": dict.fromkeys(STRATA, 10**6)})
    (pool,) = [item for item in pole_pools(store, [direction]) if item.pole == pole]
    label = Label(direction, pool.pole, "truth", f"planted/{behaviour}")
    return score_label(label, pool, "detection", plan, "test")


def planted(score: Score, truth: bool) -> str:
    """How many of the positive texts, or of the negative ones, are planted."""
    verdicts = [bool(item.verdict) for item in score.judged if item.truth is truth]
    return f"{sum(verdicts)} of {len(verdicts)}"


def shown(score: Score | None) -> str:
    """F1 with its interval."""
    if score is None or score.f1 is None or score.f1_interval is None:
        return ""
    low, high = score.f1_interval
    return f"{score.f1:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Scores the runs of the demo and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path)
    options = parser.parse_args()
    pairs = {pair.family: pair for pair in shipped_pairs() if pair.kind == "tuned"}
    stores = {}
    for family in pairs:
        run = read_run(options.runs / f"demo-{family}")
        pipeline.make_labels(run)
        pipeline.make_scores(run)
        stores[family] = RunStore(run.database_path)
    summary(stores)
    print()
    behaviours(stores, pairs)


if __name__ == "__main__":
    main()
