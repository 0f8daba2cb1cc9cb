"""How are pages put into a folder that is not only ours, and how are old ones taken away?

Everything is first rendered into a part folder inside ``out``; only when all of it is there do
files move to their places, each by a rename, and only those whose bytes changed. The manifest lists
what builds have written, with SHA-256 and size: nothing else is ever overwritten or removed. It is
extended before the first file moves, so that a build killed in between leaves no file that nobody
owns. It also says what a file was made of, where that is known: one that would be made of the same
again need not be made.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import SiteError

MANIFEST = "manifest.json"
PART = ".weightatlas-part"
#: What may lie in a folder before the first build, and stays.
WELCOME = frozenset({"README.md", ".gitkeep", ".gitignore", ".git"})
_OWN_PATH = re.compile(r"^(?:CITATION\.cff|(?:[a-z0-9._-]+/)*[a-z0-9._-]+)$")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the site as the manifest has it; ``made_of`` is empty where it is not known."""

    sha256: str = ""
    bytes: int = -1
    made_of: str = ""


class SiteFolder:
    """The folder a site is built into; :meth:`put` every file, then :meth:`finish`.

    Raises SiteError, before anything is written, if ``out`` holds files that no build made.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._part = out / PART
        self._owned = read_manifest(out)
        self._new: dict[str, Entry] = {}
        self._changed: list[str] = []
        #: Folders of the site that are not links; thousands of files lie in the same few.
        self._inside: set[str] = set()
        if not self._owned:
            strangers = sorted(_names(out) - WELCOME - {PART, MANIFEST})
            if strangers:
                shown = ", ".join(strangers[:3]) + (" ..." if len(strangers) > 3 else "")
                raise SiteError(
                    f"{out}: not an empty folder and not a site made by weightatlas (it holds "
                    f"{shown}); give another folder, or empty this one"
                )
        self._remove_part()

    def put(self, path: str, content: bytes, made_of: str = "") -> None:
        """Takes one file of the site; ``path`` is relative, ``/``-separated, ``[a-z0-9._-]``.

        ``made_of`` says in a few letters what it was made of, for the next build to compare.
        """
        target = self._claim(path)
        entry = Entry(hashlib.sha256(content).hexdigest(), len(content), made_of)
        self._new[path] = entry
        known = self._owned.get(path)
        if (
            known
            and (known.sha256, known.bytes) == (entry.sha256, entry.bytes)
            and _is_of(target, entry.bytes)
            and target.read_bytes() == content
        ):
            return
        staged = self._part / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(content)
        self._changed.append(path)

    def keep_all(self, paths: Sequence[str], made_of: str) -> bool:
        """Whether the files that are there were all made of just that; then they stay."""
        known = [self._owned.get(path) for path in paths]
        if not made_of or any(entry is None or entry.made_of != made_of for entry in known):
            return False
        found = {path: entry for path, entry in zip(paths, known, strict=True) if entry}
        if not all(_is_of(self._claim(path), entry.bytes) for path, entry in found.items()):
            return False
        self._new.update(found)
        return True

    def put_file(self, path: str, file: Path) -> None:
        """Takes one file of the site from ``file``, which goes away; for what memory should not
        hold.
        """
        target = self._claim(path)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        self._new[path] = entry = Entry(digest, file.stat().st_size)
        if _is_of(target, entry.bytes) and filecmp.cmp(target, file, shallow=False):
            file.unlink()
            return
        staged = self._part / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, staged)
        self._changed.append(path)

    def scratch(self) -> Path:
        """A folder on the site's disk for files on their way into it; it goes with the build."""
        place = self._part / ".scratch"
        place.mkdir(parents=True, exist_ok=True)
        return place

    @property
    def models(self) -> set[str]:
        """The models that earlier builds have put here."""
        parts = (path.split("/") for path in self._owned)
        return {part[1] for part in parts if part[0] == "m" and len(part) > 2}

    @property
    def bytes(self) -> int:
        """The size of the files that were put or kept so far."""
        return sum(entry.bytes for entry in self._new.values())

    @property
    def paths(self) -> list[str]:
        """The files that the site will hold, as far as they were put."""
        return sorted(self._new)

    def _claim(self, path: str) -> Path:
        if not is_own(path):
            raise SiteError(f"{path!r}: not a path inside a site")
        if path in self._new:
            raise SiteError(f"{path}: two pages of the site would have this address")
        target = self.out / path
        if self._leads_outside(path):
            raise SiteError(f"{target}: a link leads out of the site; remove it")
        if path not in self._owned and target.exists():
            raise SiteError(f"{target}: is in the way and was not made by weightatlas; remove it")
        return target

    def finish(self) -> tuple[int, int, int]:
        """Moves the files to their places and removes those of earlier builds that are no more.

        Returns how many files were written and removed, and the size of the site in bytes.
        """
        stale = sorted(self._owned.keys() - self._new.keys())
        # Until all have moved, nothing is said of what those that change are made of.
        moving = {path: Entry() for path in self._changed}
        self._write_manifest({**self._owned, **self._new, **moving})
        for path in self._changed:
            target = self.out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._part / path).replace(target)
        for path in stale:
            self._remove(path)
        self._write_manifest(self._new)
        self._remove_part()
        return len(self._changed), len(stale), self.bytes

    def give_up(self) -> None:
        """Removes what was rendered and never moved."""
        self._remove_part()

    def _write_manifest(self, files: Mapping[str, Entry]) -> None:
        # One line a file: the manifest lies in people's repositories.
        lines = ",\n".join(
            json.dumps(name)
            + ":"
            + json.dumps([e.sha256, e.bytes, e.made_of], separators=(",", ":"))
            for name, e in sorted(files.items())
        )
        text = f'{{"generator":"weightatlas","files":{{\n{lines}\n}}}}\n'
        manifest = self.out / MANIFEST
        if manifest.is_file() and manifest.read_text(encoding="utf-8") == text:
            return
        temporary = self._part / MANIFEST
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(manifest)

    def _leads_outside(self, path: str) -> bool:
        folder = path.rpartition("/")[0]
        if folder and folder not in self._inside:
            if self._leads_outside(folder):
                return True
            self._inside.add(folder)
        return (self.out / path).is_symlink()

    def _remove(self, path: str) -> None:
        if self._leads_outside(path):
            return
        (self.out / path).unlink(missing_ok=True)
        folder = (self.out / path).parent
        while folder != self.out and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def _remove_part(self) -> None:
        if self._part.is_symlink():
            raise SiteError(f"{self._part}: a link leads out of the site; remove it")
        if self._part.exists():
            shutil.rmtree(self._part)


def read_manifest(out: Path) -> dict[str, Entry]:
    """Every file that builds have put into a folder; empty without a manifest.

    Raises SiteError for a manifest that no build wrote.
    """
    path = out / MANIFEST
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        files = listed["files"] if listed["generator"] == "weightatlas" else None
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise SiteError(f"{path}: not a manifest of weightatlas: {error}") from error
    if isinstance(files, list):  # of a version that listed names only
        files = {name: ["", -1, ""] for name in files if isinstance(name, str)}
    if not isinstance(files, dict) or not all(map(is_own, files)):
        raise SiteError(f"{path}: not a manifest of weightatlas; nothing was changed")
    return {name: _entry(values) for name, values in files.items()}


def is_own(path: object) -> bool:
    """Whether a file of a site can have this path."""
    return (
        isinstance(path, str)
        and _OWN_PATH.match(path) is not None
        and not any(part.strip(".") == "" for part in path.split("/"))
        and path not in WELCOME
    )


def _entry(values: object) -> Entry:
    """What a manifest says of a file; nothing where it is not what this version writes."""
    match values:
        case [str(sha256), int(size), str(made_of)]:
            return Entry(sha256, size, made_of)
        case _:
            return Entry()


def _is_of(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _names(folder: Path) -> set[str]:
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise SiteError(f"{folder}: is a file, not a folder")
    return {entry.name for entry in folder.iterdir()}
