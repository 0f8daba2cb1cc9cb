"""Which files of a run can be downloaded, and what does the page of downloads say of them?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.pages.api import sources
from builder.pages.api.run_form import File, Source
from builder.pages.formats import name_alone
from builder.pages.links import api_folder
from builder.pages.redaction import Redacted
from builder.pages.views import RunView, database
from builder.store import Level, Mask, copy_database, tables_of, write_tables


@dataclass(frozen=True, slots=True)
class Downloads:
    """What can be downloaded of one run, and the licences of the texts in it."""

    run: RunView
    files: tuple[File, ...]
    sources: tuple[Source, ...]
    covered: Redacted

    @property
    def bytes(self) -> int:
        """All files together."""
        return sum(file["bytes"] for file in self.files)


def download_files(
    run: RunView, level: Level, scratch: Path, mask: Mask | None = None
) -> Iterator[tuple[File, Path]]:
    """Every file of a run that a level publishes, made in ``scratch``, one at a time.

    Their texts go through ``mask``, as those of pages do; the database's, too.
    Raises StoreError if the run's database cannot be read or a file cannot be written.
    """
    about = tables_of(level)
    for file in write_tables(database(run.folder), scratch, level, mask):
        yield _described(run, file, about[file.stem]), file
    if level == "database":
        copy = scratch / "run.duckdb"
        copy_database(database(run.folder), copy, public, mask)
        yield _described(run, copy, "all of it, as one database"), copy


def downloads(
    runs: Sequence[RunView],
    files: Mapping[str, Sequence[File]],
    covered: Mapping[str, Redacted],
) -> tuple[Downloads, ...]:
    """What the page shows; ``files`` and ``covered`` by the name of the run."""
    return tuple(
        Downloads(run, tuple(files[run.name]), tuple(sources(run)), covered[run.name])
        for run in runs
    )


def public(value: Any) -> Any:
    """A fact of a run as others may see it: of local paths, however deep, only their names."""
    if isinstance(value, str):
        return name_alone(value)
    if isinstance(value, Mapping):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [public(item) for item in value]
    return value


def described(path: str, content: bytes, about: str) -> File:
    """A file of the site that is in memory."""
    digest = hashlib.sha256(content).hexdigest()
    return {"path": path, "bytes": len(content), "sha256": digest, "about": about}


def _described(run: RunView, file: Path, about: str) -> File:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    path = f"{api_folder(run.name)}/{file.name}"
    return {"path": path, "bytes": file.stat().st_size, "sha256": digest, "about": about}
