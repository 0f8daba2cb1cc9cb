"""Is a built site fit to be published? Everything that is wrong with it, told at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.errors import PublishError, SiteError, shown
from builder.pages.api.reading import read_site
from builder.pages.api.run_form import RunFile
from builder.pages.folder import MANIFEST, PART, WELCOME, Entry, is_own, read_manifest
from builder.publish import limits
from builder.publish.page_links import PageLinks
from builder.publish.private_names import TEXTS, PrivateNames, readable

#: Sources that a line names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """A site that was looked at: its files with their bytes, what is wrong, what is to be known."""

    site: Path
    title: str
    files: dict[str, int]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """All files together, the manifest among them."""
        return sum(self.files.values())

    def refuse(self, *, strict: bool = False) -> None:
        """Raises PublishError with everything that is wrong; ``strict`` counts warnings as that."""
        wrong = [*self.faults, *(self.warnings if strict else ())]
        if wrong:
            head = f"{self.site}: not fit to be published; nothing was changed"
            raise PublishError("\n  ".join([head, *wrong]))


def check_site(
    site: Path, target: limits.Target = "folder", names: PrivateNames | None = None
) -> Checked:
    """What is wrong with the site in a folder, and what is to be known before it goes to a host.

    ``names`` are what no file may hold; those of this machine unless given. Reads every file once.
    Raises PublishError if the folder holds no site.
    """
    try:
        listed = read_manifest(site)
        if not listed:
            raise PublishError(f"{site}: holds no built site; run `weightatlas build` first")
        index, runs = read_site(site)
    except SiteError as error:
        raise PublishError(f"{error}") from error
    names = names or PrivateNames.of_here(site)
    present = _Present(site)
    faults = [*present.faults(listed)]
    links = PageLinks()
    told: list[str] = []
    for path in sorted(present.files & listed.keys()):
        content = (site / path).read_bytes()
        faults += _changed(path, content, listed[path])
        if Path(path).suffix not in TEXTS:
            continue
        try:
            text = readable(content)
        except (OSError, EOFError, ValueError) as error:
            faults.append(f"{path}: cannot be unpacked: {error}")
            continue
        faults += [
            f"{path}: holds a path of this machine: {shown(n)}" for n in names.paths_in(text)
        ]
        told += [f"{path}: holds a name of this machine: {shown(n)}" for n in names.names_in(text)]
        if path.endswith(".html"):
            links.add(path, content.decode("utf-8", "replace"))
        elif path.startswith("m/") and "/s/" in path:
            links.add_shard(path, content)
    faults += links.faults(present.files, site)
    sizes = {path: (site / path).stat().st_size for path in sorted(present.files & listed.keys())}
    sizes[MANIFEST] = (site / MANIFEST).stat().st_size
    faults += limits.faults(sizes, target, _examples(runs))
    warnings = [*limits.warnings(sizes, target), *_without_licence(runs), *told]
    return Checked(site, index["title"], sizes, tuple(faults), tuple(warnings))


class _Present:
    """What lies in the folder of a site."""

    def __init__(self, site: Path) -> None:
        self.files: set[str] = set()
        self._links: list[str] = []
        for folder, names, files in os.walk(site, followlinks=False):
            place = Path(folder)
            top = place == site
            for name in (*names, *files):
                path = (place / name).relative_to(site).as_posix()
                if (place / name).is_symlink():
                    self._links.append(path)
                elif name in files and not (top and name in WELCOME | {MANIFEST}):
                    self.files.add(path)
            # What is welcome beside a site is not published with it.
            names[:] = [name for name in names if not (top and name in WELCOME | {PART})]

    def faults(self, listed: dict[str, Entry]) -> Iterator[str]:
        """What is too much or missing, by the manifest."""
        for path in sorted(self._links):
            yield f"{path}: a symbolic link; hosts take files only"
        for path in sorted(self.files - listed.keys()):
            name = "" if is_own(path) else ", and has no name that a site's file can have"
            yield f"{shown(path)}: is no file of the site{name}; remove it"
        for path in sorted(listed.keys() - self.files - set(self._links)):
            yield f"{path}: is missing; render the site again"


def _changed(path: str, content: bytes, entry: Entry) -> Iterator[str]:
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        yield f"{path}: is not as it was built (its SHA-256 is another); render the site again"


def _without_licence(runs: dict[str, RunFile]) -> Iterator[str]:
    for name, run in runs.items():
        without = [
            source.get("name") or "a source without a name"
            for source in run.get("corpus", [])
            if not source.get("licence")
        ]
        if without:
            more = " ..." if len(without) > _NAMED else ""
            named = ", ".join(map(shown, without[:_NAMED]))
            yield f"{name}: no licence is stated for texts of {named}{more}"


def _examples(runs: dict[str, RunFile]) -> int:
    """The most examples that any run was to show at each pole."""
    stated = [run.get("settings", {}).get("site.examples", "") for run in runs.values()]
    return max((int(text) for text in stated if text.isdigit()), default=20)
