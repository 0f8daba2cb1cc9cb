"""What does a whole build take? Documents, tokens, seconds by stage, peak memory, sizes.

    python bench/build_figures.py recipes/real-text.toml

Builds the recipe (finished stages are taken as they are) and prints the table of
docs/benchmarks.md from what the stages put on record.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from builder import pipeline
from builder.run_folder import read_run


def main() -> None:
    """Prints the figures of one build as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    run = read_run(options.recipe, tuple(options.set))
    pipeline.build(run)
    found = pipeline.status(run.folder)
    stages = found["stages"]
    rows = {
        "documents": f"{found['documents']:,}",
        "tokens": f"{stages['scan']['tokens']:,}",
        "directions (with controls)": f"{stages['directions']['directions']:,}",
        **{
            f"{name}, seconds / peak MB": f"{stage['seconds']:.1f} / {stage['peak_memory_mb']:,}"
            for name, stage in stages.items()
        },
        "database": f"{found['database_bytes'] / 2**20:.1f} MB",
        "site": f"{stages['site']['bytes'] / 2**20:.1f} MB, {stages['site']['pages']:,} pages",
    }
    sys.stdout.write("| | |\n|---|---:|\n")
    for name, value in rows.items():
        sys.stdout.write(f"| {name} | {value} |\n")


if __name__ == "__main__":
    main()
