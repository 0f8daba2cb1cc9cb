"""What does a merge cost? 200 shards of 1,000 directions become one database.

    python bench/merge.py /tmp/merge-bench

Writes the shards first, in a process of its own (some 4 GB; kept and used again), then merges them
here and prints seconds, this process's peak memory (VmHWM; DuckDB's included), the size of the
database and what takes it up. The bars: 60 seconds on two cores, 1 GB, 60 MB.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from builder.config import ScanSettings
from builder.store import NO_CLUSTERS, Shard, column_sizes, write_database
from tests.store.synthetic import Scale, copies_of, directions_of, write_shard

SCALE = Scale(
    directions=1000,
    roles=(0,),
    documents=2048,
    tokens=256,
    top=20,
    length=128,
    tail=100,
    samples=3,
    sources=("chat", "images", "code", "wiki", "forum"),
    repeated=64,
)
SETTINGS = ScanSettings(top=20, tail=100, reservoir=400, held_out=200, quantiles=5)
BARS = {"seconds": 60.0, "peak memory, MB": 1000.0, "database, MB": 60.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="only write the shards")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    options = parser.parse_args()
    if options.write:
        write(options.folder, options.shards)
        return
    command = [sys.executable, __file__, str(options.folder), "--write"]
    subprocess.run([*command, "--shards", str(options.shards)], check=True)
    found = sorted((options.folder / "shards").iterdir())[: options.shards]
    clusters = copies_of(len(found), SCALE) if SCALE.repeated else NO_CLUSTERS
    database = options.folder / "run.duckdb"
    profile = cProfile.Profile()
    if options.profile:
        profile.enable()
    start, used = time.perf_counter(), time.process_time()
    write_database(
        database,
        directions_of(SCALE.directions),
        [Shard(folder) for folder in found],
        settings=SETTINGS,
        meta={},
        clusters=clusters,
    )
    seconds, used = time.perf_counter() - start, time.process_time() - used
    profile.disable()
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(20)
    figures = {
        "seconds": seconds,
        "peak memory, MB": peak_mb(),
        "database, MB": database.stat().st_size / 1e6,
    }
    print(f"{len(found)} shards, {used:.1f} seconds of processor time")
    for name, value in figures.items():
        print(f"{name:18}{value:10.1f}  (bar {BARS[name]:.0f}, {value / BARS[name]:.0%} of it)")
    for name, size in sorted(column_sizes(database).items(), key=lambda item: -item[1])[:8]:
        print(f"  {name:40}{size / 1e6:8.1f} MB")


def write(folder: Path, shards: int) -> None:
    """Writes the shards that are not there yet."""
    done = {int(place.name[:6]) for place in (folder / "shards").glob("*-*")}
    for number in sorted(set(range(shards)) - done):
        part = write_shard(folder / "part", number, SCALE)
        (folder / "shards").mkdir(exist_ok=True)
        part.rename(folder / "shards" / part.name)


def peak_mb() -> float:
    """The most memory this process has held, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
