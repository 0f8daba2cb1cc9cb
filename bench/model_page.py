"""What does a model's page cost? Its queries, values and HTML for a run of 5,000 directions.

    python bench/model_page.py /tmp/model-bench

Writes a made-up run first (bench/made_run.py; kept and used again), and makes its page five times
in one process, database open, as a build does. Prints the best time, processor time and bytes. The
bar: 1.5 s.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.made_run import make_database
from builder.config import SiteSettings
from builder.pages.model_view import model_page
from builder.pages.overview import overview
from builder.pages.render import Renderer
from builder.pages.views import read_run
from builder.store import RunStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--directions", type=int, default=5000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    run_folder = options.folder / f"run-{options.directions}-base"
    run_folder.mkdir(parents=True, exist_ok=True)
    database = run_folder / "run.duckdb"
    if not database.is_file():
        make_database(database, options.directions, with_base=True)
    renderer = Renderer(SiteSettings(title="bench"))
    with RunStore(database) as store:
        start = time.perf_counter()
        run = read_run(run_folder, store)
        print(f"reading the run, once a build   {time.perf_counter() - start:6.2f} s")
        taken = []
        for _ in range(options.times):
            start, cpu = time.perf_counter(), time.process_time()
            view = overview(run, store, 20)
            read = time.perf_counter() - start
            page = renderer.page("model.html", run.page, **model_page(run, view))
            taken.append((time.perf_counter() - start, time.process_time() - cpu, read))
    best, cpu, read = min(taken)
    print(f"the page, best of {options.times}            {best:6.2f} s (bar 1.5), "
          f"processor {cpu:.2f} s, of it queries {read:.2f} s")  # fmt: skip
    cells = re.findall(rb'<td class="[^"]*"><a .*?</a>', page, re.DOTALL)
    print(f"page {len(page) / 1000:,.0f} kB; {len(cells):,} cells of "
          f"{sum(map(len, cells)) / len(cells):.0f} bytes")  # fmt: skip


if __name__ == "__main__":
    main()
