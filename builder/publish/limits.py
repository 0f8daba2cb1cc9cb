"""What do hosts take, and what would make a site fit? Sizes by kind of file, from the manifest."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from builder.pages.formats import size

Target = Literal["gh-pages", "folder", "actions", "space"]
TARGETS: tuple[Target, ...] = ("gh-pages", "folder", "actions", "space")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a host takes, in bytes and files; None for no limit that it states."""

    host: str
    most: int | None
    #: A larger site works, but not well.
    much: int | None
    largest_file: int | None
    large_file: int | None
    files_in_folder: int | None


_PAGES = Limits("GitHub Pages", 10**9, 500 * 10**6, 100 * 2**20, 50 * 2**20, None)
#: Pages stops a deployment that takes longer than ten minutes, which sites near 1 GB do; a push
#: with a file of 100 MiB is refused. A Space keeps files beyond 10 MB apart, which costs nothing.
LIMITS: Mapping[Target, Limits] = {
    "gh-pages": _PAGES,
    "actions": _PAGES,
    "folder": _PAGES,
    "space": Limits("a Hugging Face Space", None, None, None, 10 * 10**6, 10_000),
}
#: Tables with texts or activations, which a lower level of downloads leaves out.
_WITH_TEXTS = ("examples", "quantile_examples", "reservoir", "histograms")


@dataclass(frozen=True, slots=True)
class Kinds:
    """Bytes of a site by what files are for."""

    pages: int
    #: All examples, for the pages' scripts: as many bytes more as there are examples.
    scripts: int
    #: A copy of the database, and tables with texts.
    databases: int
    tables: int
    rest: int
    #: By model; what all share is in none.
    runs: Mapping[str, int]
    #: Whether pages are packed together already.
    is_sharded: bool = False

    @property
    def all(self) -> int:
        """The whole site."""
        return self.pages + self.scripts + self.databases + self.tables + self.rest


def kinds(files: Mapping[str, int]) -> Kinds:
    """Sizes by kind; ``files`` are bytes by path."""
    found: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    for path, n in files.items():
        folder, _, name = path.rpartition("/")
        stem, end = posixpath.splitext(name)
        if folder.endswith(("/d", "/s")) or name == "texts.js":
            kind = "scripts"
        elif end == ".duckdb":
            kind = "databases"
        elif end == ".parquet" and stem in _WITH_TEXTS:
            kind = "tables"
        else:
            kind = "pages" if end == ".html" else "rest"
        found[kind] += n
        parts = path.split("/")
        if parts[0] in ("m", "api") and len(parts) > 2:
            runs[parts[1]] += n
    return Kinds(
        found["pages"],
        found["scripts"],
        found["databases"],
        found["tables"],
        found["rest"],
        {name: n for name, n in runs.items() if name != "schema"},
        any(path.startswith("m/") and "/s/" in path for path in files),
    )


def faults(files: Mapping[str, int], target: Target, examples: int) -> Iterator[str]:
    """What a host refuses, and for a site that is too large what would fit."""
    limits = LIMITS[target]
    for path, n in files.items():
        if limits.largest_file is not None and n >= limits.largest_file:
            yield f"{path}: {size(n)}, and git hosts refuse files of {size(limits.largest_file)}"
    total = sum(files.values())
    if limits.most is not None and total > limits.most:
        told = "; ".join(plan(kinds(files), limits.most, examples))
        yield f"the site has {size(total)}, and {limits.host} takes {size(limits.most)}. {told}"
    if limits.files_in_folder is not None:
        folders = Counter(path.rpartition("/")[0] for path in files)
        for folder, n in sorted(folders.items()):
            if n > limits.files_in_folder:
                yield (
                    f"{folder or 'the top'}: {n:,} files, and {limits.host} takes "
                    f"{limits.files_in_folder:,} in a folder: render fewer directions a model"
                )


def warnings(files: Mapping[str, int], target: Target) -> Iterator[str]:
    """What a host takes, but not gladly."""
    limits = LIMITS[target]
    for path, n in files.items():
        is_refused = limits.largest_file is not None and n >= limits.largest_file
        if limits.large_file is not None and n >= limits.large_file and not is_refused:
            how = "keeps" if target == "space" else "warns of"
            yield f"{path}: {size(n)}; {limits.host} {how} files of {size(limits.large_file)}" + (
                " in large-file storage" if target == "space" else ""
            )
    total = sum(files.values())
    if limits.much is not None and limits.much < total <= (limits.most or total):
        yield (
            f"the site has {size(total)}: from {size(limits.much)} on deployments to "
            f"{limits.host} may take too long"
        )


def plan(found: Kinds, most: int, examples: int) -> Iterator[str]:
    """What would make a site of these sizes fit into ``most`` bytes, the least loss first."""
    too_much = found.all - most
    optional = (
        ('without the database (site.downloads = "examples")', found.databases),
        ('with light tables only (site.downloads = "tables")', found.databases + found.tables),
    )
    for how, saved in optional:
        if saved >= too_much:
            yield f"{how} it would have {size(found.all - saved)}"
            return
    saved = found.databases + found.tables
    if not found.is_sharded:
        yield 'packed together (site.layout = "shards") its pages would take a third at most'
    left = most - (found.all - saved - found.scripts)
    if left > 0 and found.scripts:
        fewer = math.floor(examples * left / found.scripts * 0.95)
        if 0 < fewer < examples:
            extra = " and light tables only" if saved else ""
            yield f"with site.examples = {fewer} instead of {examples}{extra} it would fit"
    if len(found.runs) > 1:
        shared = found.all - sum(found.runs.values())
        sites = _sites(found.runs, most - shared)
        if sites:
            yield f"its {len(found.runs)} models would fit into {sites} sites"
    yield "or render fewer directions (directions.k)"


def _sites(runs: Mapping[str, int], room: int) -> int:
    """How many sites take these models, each put where it first fits; 0 if one fits nowhere."""
    left: list[int] = []
    for n in sorted(runs.values(), reverse=True):
        if n > room:
            return 0
        place = next((at for at, free in enumerate(left) if free >= n), None)
        if place is None:
            left.append(room - n)
        else:
            left[place] -= n
    return len(left)
