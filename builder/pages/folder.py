"""How are pages put into a folder that is not only ours, and how are old ones taken away?

Everything is first rendered into a part folder inside ``out``; only when all of it is there do
files move to their places, each by a rename, and only those whose bytes changed. The manifest lists
what builds have written: nothing else is ever overwritten or removed. It is extended before the
first file moves, so that a build killed in between leaves no file that nobody owns.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from builder.errors import SiteError

MANIFEST = "manifest.json"
PART = ".weightatlas-part"
#: What may lie in a folder before the first build, and stays.
WELCOME = frozenset({"README.md", ".gitkeep", ".gitignore", ".git"})
_OWN_PATH = re.compile(r"^(?:[a-z0-9._-]+/)*[a-z0-9._-]+$")


class SiteFolder:
    """The folder a site is built into; :meth:`put` every file, then :meth:`finish`.

    Raises SiteError, before anything is written, if ``out`` holds files that no build made.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._part = out / PART
        self._owned = self._read_manifest()
        self._new: dict[str, int] = {}
        self._changed: list[str] = []
        if not self._owned:
            strangers = sorted(_names(out) - WELCOME - {PART, MANIFEST})
            if strangers:
                shown = ", ".join(strangers[:3]) + (" ..." if len(strangers) > 3 else "")
                raise SiteError(
                    f"{out}: not an empty folder and not a site made by weightatlas (it holds "
                    f"{shown}); give another folder, or empty this one"
                )
        self._remove_part()

    def put(self, path: str, content: bytes) -> None:
        """Takes one file of the site; ``path`` is relative, ``/``-separated, ``[a-z0-9._-]``."""
        if not _is_own(path):
            raise SiteError(f"{path!r}: not a path inside a site")
        if path in self._new:
            raise SiteError(f"{path}: two pages of the site would have this address")
        target = self.out / path
        if self._leads_outside(path):
            raise SiteError(f"{target}: a link leads out of the site; remove it")
        if path not in self._owned and target.exists():
            raise SiteError(f"{target}: is in the way and was not made by weightatlas; remove it")
        self._new[path] = len(content)
        if target.is_file() and target.read_bytes() == content:
            return
        staged = self._part / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(content)
        self._changed.append(path)

    def finish(self) -> tuple[int, int, int]:
        """Moves the files to their places and removes those of earlier builds that are no more.

        Returns how many files were written and removed, and the size of the site in bytes.
        """
        stale = sorted(self._owned - set(self._new))
        self._write_manifest(self._owned | set(self._new))
        for path in self._changed:
            target = self.out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._part / path).replace(target)
        for path in stale:
            self._remove(path)
        self._write_manifest(self._new)
        self._remove_part()
        return len(self._changed), len(stale), sum(self._new.values())

    def give_up(self) -> None:
        """Removes what was rendered and never moved."""
        self._remove_part()

    def _read_manifest(self) -> set[str]:
        path = self.out / MANIFEST
        if not path.is_file():
            return set()
        try:
            listed = json.loads(path.read_text(encoding="utf-8"))
            files = listed["files"] if listed["generator"] == "weightatlas" else None
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise SiteError(f"{path}: not a manifest of weightatlas: {error}") from error
        if not isinstance(files, list) or not all(map(_is_own, files)):
            raise SiteError(f"{path}: not a manifest of weightatlas; nothing was changed")
        return {str(item) for item in files}

    def _write_manifest(self, files: Iterable[str]) -> None:
        content = {"generator": "weightatlas", "files": sorted(files)}
        text = json.dumps(content, indent=0) + "\n"
        manifest = self.out / MANIFEST
        if manifest.is_file() and manifest.read_text(encoding="utf-8") == text:
            return
        temporary = self._part / MANIFEST
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(manifest)

    def _leads_outside(self, path: str) -> bool:
        *parents, _ = path.split("/")
        folder = self.out
        for parent in parents:
            folder /= parent
            if folder.is_symlink():
                return True
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


def _is_own(path: object) -> bool:
    return (
        isinstance(path, str)
        and _OWN_PATH.match(path) is not None
        and not any(part.strip(".") == "" for part in path.split("/"))
        and path not in WELCOME
    )


def _names(folder: Path) -> set[str]:
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise SiteError(f"{folder}: is a file, not a folder")
    return {entry.name for entry in folder.iterdir()}
