"""What does a site cost? 5,000 directions of 40 examples of 128 tokens, rendered on two cores.

    python bench/site.py /tmp/site-bench

Writes a made-up run first (bench/made_run.py; kept and used again), then builds its site, builds it
again after one label changed, and prints pages a second, memory of all processes together, bytes a
direction by kind of file, and what the second build touched. The bars: 150 pages a second, 1.5 GB,
45 kB a direction; 10 seconds for the second build.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Literal, get_args

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.made_run import make_database
from builder.config import SiteSettings
from builder.pages import build_site
from builder.pages.links import SHELL
from builder.pages.site import SiteReport
from builder.store import RunStore

_MB = 1e6
Layout = Literal["auto", "pages", "shards"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--directions", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--with-base", action="store_true", help="the base scanned as well")
    parser.add_argument("--layout", choices=get_args(Layout), default="auto")
    options = parser.parse_args()
    kind = f"{options.directions}{'-base' if options.with_base else ''}"
    run, out = options.folder / f"run-{kind}", options.folder / f"site-{kind}"
    run.mkdir(parents=True, exist_ok=True)
    database = run / "run.duckdb"
    if not database.is_file():
        make_database(database, options.directions, with_base=options.with_base)
    shutil.rmtree(out, ignore_errors=True)
    print(f"{options.directions:,} directions, database {database.stat().st_size / _MB:,.0f} MB")

    report, seconds, peak, forecast = built(run, out, options.workers, options.layout)
    print(f"first build       {seconds:8.1f} s, {report.made / seconds:.0f} pages/s (bar 150)")
    print(f"memory            {peak / _MB:8.0f} MB, all processes together (bar 1,500)")
    each = report.bytes / options.directions
    print(
        f"site              {report.bytes / _MB:8.1f} MB, {each / 1000:.1f} kB a direction (bar 45)"
    )
    print(f"forecast          {forecast / _MB:8.1f} MB for the files of directions")
    sizes = Counter[str]()
    for path in out.rglob("*"):
        if path.is_file():
            sizes[_kind(path.relative_to(out))] += path.stat().st_size
    for name, size in sizes.most_common():
        print(f"  {name:28}{size / options.directions / 1000:8.2f} kB a direction")

    with RunStore(database, read_only=False) as store:
        labels = store.labels()
        first = labels[0]
        changed = dataclasses.replace(first, text=f"{first.text} {time.time():.0f}")
        store.replace_labels([changed, *labels[1:]])
    report, seconds, peak, _ = built(run, out, options.workers, options.layout)
    print(f"one label changed {seconds:8.1f} s (bar 10): {report.made} pages made, "
          f"{report.written} files written, {peak / _MB:.0f} MB")  # fmt: skip


def built(run: Path, out: Path, workers: int, layout: Layout) -> tuple[SiteReport, float, int, int]:
    """A build's report, seconds, peak memory of this process and its children, and forecast."""
    forecasts: list[int] = []
    with Memory() as memory:
        start = time.perf_counter()
        report = build_site(
            [run],
            out,
            SiteSettings(out=str(out), layout=layout),
            on_forecast=lambda found: forecasts.append(found.bytes),
            workers=workers,
        )
        seconds = time.perf_counter() - start
    return report, seconds, memory.peak, forecasts[0]


class Memory:
    """The most that this process and its children hold at one time, looked at four times a second.

    Proportional set size: pages that several processes share are counted once.
    """

    def __enter__(self) -> Memory:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.25):
            self.peak = max(self.peak, sum(map(_held, _family(os.getpid()))))


def _family(process: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        children.setdefault(parent, []).append(int(place.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


def _held(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _kind(path: Path) -> str:
    top, *rest = path.parts
    if top == "m":
        if rest[1] in ("d", "s"):
            return "direction script" if rest[1] == "d" else "shards"
        of_all = ("index.html", "texts.js", "names.js", f"{SHELL}.html")
        return "model" if rest[-1] in of_all else "direction page"
    return top


if __name__ == "__main__":
    main()
