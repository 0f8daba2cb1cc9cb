"""Do files hold what tells of this machine? Its paths, its name, and the name of its user.

Pages show only the ends of local paths; this looks whether anything got through. Packed scripts are
unpacked for it; tables and databases are compressed and not looked into. Names that are words, or
the usual names of servers, say nothing.
"""

from __future__ import annotations

import contextlib
import getpass
import gzip
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from builder.pages.packed import from_letters

#: Files of a site that hold text.
TEXTS = frozenset({".cff", ".css", ".gz", ".html", ".js", ".json", ".svg", ".txt", ".xml"})
#: Names that are no one's, or of which texts are full.
_USUAL = frozenset(
    {"admin", "build", "debian", "docker", "guest", "home", "local", "localhost", "node", "root",
     "runner", "server", "test", "ubuntu", "user", "vagrant", "worker"}
)  # fmt: skip
_SHORTEST = 4
_GZIP = b"\x1f\x8b"
_PACKED = re.compile(rb'\AWA\.\w+\((\d+),"([^"]*)"\);\s*\Z')


class PrivateNames:
    """What is looked for on this machine, for sites that were built on it."""

    def __init__(self, paths: Iterable[Path], names: Iterable[str]) -> None:
        """``paths`` are folders whose absolute paths no file may hold, ``names`` are words."""
        texts = {str(path) for path in paths if len(path.parts) > 2}
        forms = {form for text in texts for form in (text, text.replace("\\", "\\\\"))}
        self._paths = _any_of(forms, after=r"(?![\w-])")
        kept = {name for name in names if len(name) >= _SHORTEST and name.casefold() not in _USUAL}
        self._names = _any_of(kept, before=r"(?<![\w-])", after=r"(?![\w-])")

    @classmethod
    def of_here(cls, site: Path) -> PrivateNames:
        """Those of this machine: home, working folder, the site's; user and host."""
        names = [socket.gethostname().partition(".")[0]]
        # A user without a name has none to give away.
        with contextlib.suppress(OSError, KeyError, ImportError):
            names.append(getpass.getuser())
        return cls({Path.home(), Path.cwd(), site.resolve().parent}, names)

    def paths_in(self, content: bytes) -> list[str]:
        """The paths that a file holds."""
        return _found(self._paths, content)

    def names_in(self, content: bytes) -> list[str]:
        """The names that a file holds as words."""
        return _found(self._names, content)


def readable(content: bytes) -> bytes:
    """A file's text: of a packed file what it holds, of any other the file itself."""
    if content.startswith(_GZIP):
        return gzip.decompress(content)
    match = _PACKED.match(content)
    if match is None:
        return content
    return gzip.decompress(from_letters(match[2])[: int(match[1])])


def _any_of(texts: Iterable[str], *, before: str = "", after: str = "") -> re.Pattern[bytes] | None:
    # The longest first, so that it is the one that is named.
    ordered = sorted(texts, key=lambda text: (-len(text), text))
    if not ordered:
        return None
    pattern = f"{before}(?:{'|'.join(map(re.escape, ordered))}){after}"
    return re.compile(pattern.encode("utf-8", "surrogateescape"))


def _found(pattern: re.Pattern[bytes] | None, content: bytes) -> list[str]:
    if pattern is None:
        return []
    return sorted({match[0].decode("utf-8", "replace") for match in pattern.finditer(content)})
