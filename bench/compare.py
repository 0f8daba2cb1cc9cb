"""What does comparing two runs cost? Seconds and memory, as docs/benchmarks.md quotes them.

    python bench/compare.py [--directions 5000] [--width 4096] [--threads 2]

Two made-up runs, four in ten of whose directions are shared; against the bare product of their
vectors in float64, measured in the same process.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Makes the runs, compares them, prints a line a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directions", type=int, default=5000)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    import numpy as np

    from builder.comparison import compare_runs
    from builder.labels.similar import nearest_across
    from builder.records import Direction, DirectionSet, Hookpoint, Label, ModelRef
    from builder.weights.direction_file import save_directions

    rng = np.random.default_rng(0)
    n, width = options.directions, options.width
    sets = [rng.standard_normal((n, width)).astype(np.float32) for _ in range(2)]
    shared = 2 * n // 5
    sets[1][:shared] = sets[0][:shared] + 0.5 * sets[1][:shared]

    started = time.perf_counter()
    _ = sets[0].astype(np.float64) @ sets[1].astype(np.float64).T
    bare = time.perf_counter() - started
    print(f"bare product of {n} x {n} x {width} in float64: {bare:.1f} s")
    del _

    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for at, vectors in enumerate(sets):
            run = Path(folder) / f"run{at}"
            run.mkdir()
            directions = tuple(
                Direction(Hookpoint(i // 160, "o_proj"), i % 160, vector, f"{i:016x}", sigma=1.0)
                for i, vector in enumerate(vectors)
            )
            base, tuned = ModelRef("base", "a" * 40), ModelRef(f"tuned{at}", f"{at}" * 40)
            held = DirectionSet(base, tuned, "delta", width, 32, directions)
            save_directions(run / "directions.safetensors", held)
            runs.append(run)
        del sets, directions, held, vectors
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        (group,) = compare_runs(runs).groups
        took = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"compare_runs, reading included: {took:.1f} s, {took / bare:.2f} times the product; "
            f"{len(group.pairs[0].matches)} matched of {shared} planted"
        )
        print(f"peak memory of the process {peak // 1024} MB ({before // 1024} MB before)")

    words = [f"word{i}" for i in range(2000)]
    texts = [" ".join(rng.choice(words, 8)) for _ in range(4 * n)]
    labels = [Label(f"d{i}", "max", "by bench", text) for i, text in enumerate(texts)]
    started = time.perf_counter()
    nearest_across([labels[: 2 * n], labels[2 * n :]])
    print(f"labels of {2 * n} poles each, TF-IDF: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
