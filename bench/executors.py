"""How much faster do two workers scan than one? Ratios measured in one run, as a Markdown table.

    python bench/executors.py [busy] [scan] [--shards N] [--rounds N]

``busy``: a job that keeps one thread at matrix products for about two seconds a shard. ``scan``:
the scan itself, of a shipped model over made-up conversations. Each by one worker, by two
processes, and by a Ray started here with two actors, all with one thread a worker. Documents a
second are counted from when every worker has answered once ("warm"), and over everything, starting
included. Rounds are taken in turns, and the best of each is shown, since machines are shared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.execute import Executor, Files, InProcess, Job, Unit
from builder.execute.cluster import Cluster
from builder.execute.processes import Processes

DOCUMENTS = 256
WORDS = ("river", "stone", "lantern", "market", "bread", "window", "winter", "garden", "copper")
EXECUTORS: dict[str, Callable[[], Executor]] = {
    "this process": lambda: InProcess("cpu", 1, 0),
    "two processes": lambda: Processes(2, ("cpu",), 1, 0),
    "Ray, two actors": lambda: Cluster(2, "", "cpu", 1, 0),
}


@dataclass(frozen=True, slots=True)
class Busy:
    """Matrix products for about ``seconds`` on one thread."""

    products: int

    def preparer(self) -> Callable[[Any], Any]:
        return lambda task: bytes(1 << 20) + bytes([task])

    def worker(
        self, device: str, threads: int | None, on_batch: Callable[[int, int], None]
    ) -> Callable[[Any], Files]:
        import torch

        torch.set_num_threads(threads or 1)
        matrix = torch.randn(384, 384, generator=torch.Generator().manual_seed(0)) / 20

        def work(prepared: bytes) -> Files:
            found = matrix
            for _ in range(self.products):
                found = matrix @ found
                found = found / found.norm()
            on_batch(DOCUMENTS, DOCUMENTS)
            return {"result": found.numpy().tobytes(), "more": bytes(2 << 20)}

        return work


def busy_job(seconds: float) -> Busy:
    """A job whose shards take about ``seconds`` here."""
    trial = Busy(2000)
    work = trial.worker("cpu", 1, lambda _documents, _tokens: None)
    work(b"")
    start = time.perf_counter()
    work(b"")
    return Busy(int(2000 * seconds / (time.perf_counter() - start)))


def measured(
    executor: Executor, units: list[Unit], job: Job, task_of: Callable[[Unit], Any]
) -> tuple[float, float]:
    """Documents a second: warm, and over everything."""
    start = time.perf_counter()
    results = executor.results(units, job, task_of, lambda _unit, _documents, _tokens: None)
    answers = [time.perf_counter() for _ in results]
    first = answers[executor.workers - 1]
    warm = sum(unit.size for unit in units[executor.workers :]) / (answers[-1] - first)
    return warm, sum(unit.size for unit in units) / (time.perf_counter() - start)


def conversations(path: Path, n: int) -> None:
    """Random conversations of about 130 words, one JSON object a line."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(n):
            messages = [
                {"role": role, "content": " ".join(rng.choices(WORDS, k=rng.randint(5, 60)))}
                for _ in range(2)
                for role in ("user", "assistant")
            ]
            stream.write(json.dumps({"messages": messages}) + "\n")


def scan_job(folder: Path, shards: int) -> tuple[Job, list[Unit], Callable[[Unit], Any]]:
    """The scan of the shipped Llama pair over made-up conversations."""
    from builder.activations.corpus import read_checked
    from builder.config import parse_settings
    from builder.corpus_stage import freeze_corpus
    from builder.organisms.manifest import shipped_pairs
    from builder.pipeline import make_directions
    from builder.run_folder import Run, claimed
    from builder.scan_stage import plan_units
    from builder.scan_stage import scan_job as job_of

    pair = next(pair for pair in shipped_pairs() if pair.name.startswith("llama"))
    conversations(folder / "corpus.jsonl", shards * DOCUMENTS)
    settings = parse_settings(
        {
            "name": "bench",
            "runs": str(folder),
            "model": {"base": str(pair.base), "tuned": str(pair.tuned)},
            "corpus": {"sources": [{"path": str(folder / "corpus.jsonl")}]},
            "scan": {"shard_documents": DOCUMENTS, "device": "cpu"},
        }
    )
    run = Run(folder / "bench", settings)
    directions = make_directions(run)
    with claimed(run):
        frozen = freeze_corpus(run)
        units, _ = plan_units(run, directions, frozen)
    slices = [item for part in frozen["parts"] for item in part["slices"]]

    def task_of(unit: Unit) -> tuple[bytes, bytes]:
        item = slices[unit.number]
        return (
            read_checked(run.corpus_path / item["name"], item["digest"]),
            read_checked(run.corpus_path / item["notes"], item["notes_digest"]),
        )

    return job_of(run, directions), units, task_of


def compare(name: str, job: Job, units: list[Unit], task_of: Any, rounds: int) -> None:
    """Prints a row for each executor."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for who, make in EXECUTORS.items():
            rates = measured(make(), units, job, task_of)
            before = best.get(who, (0.0, 0.0))
            best[who] = (max(rates[0], before[0]), max(rates[1], before[1]))
    one, two = (best[who] for who in ("this process", "two processes"))
    for who, (warm, whole) in best.items():
        print(
            f"| {name} | {who} | {warm:,.0f} | {warm / one[0]:.2f} | {warm / two[0]:.2f} "
            f"| {whole:,.0f} | {whole / one[1]:.2f} |",
            flush=True,
        )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", nargs="*", default=["busy", "scan"])
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print("| job | by | documents/s, warm | of one | of two processes | from start | of one |")
    print("|---|---|---:|---:|---:|---:|---:|")
    if "busy" in options.what:
        units = [Unit(number, "busy", DOCUMENTS) for number in range(options.shards)]
        compare("busy", busy_job(2.0), units, lambda unit: unit.number, options.rounds)
    if "scan" in options.what:
        with tempfile.TemporaryDirectory() as folder:
            job, units, task_of = scan_job(Path(folder), options.shards)
            compare("scan", job, units, task_of, options.rounds)


if __name__ == "__main__":
    main()
