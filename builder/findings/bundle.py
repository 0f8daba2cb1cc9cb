"""How do several findings travel in one file? Each after a line ``=== finding: name.md ===``.

A browser downloads one file, not many, so triage exports one. A line of a finding that would look
like such a separator has a backslash before it, which Markdown does not show and splitting removes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from builder.errors import ConfigError, SiteError, shown
from builder.execute import write_atomically
from builder.findings.finding import Fault, refuse
from builder.findings.reading import LARGEST, read_finding

_SEPARATOR = re.compile(r"=== finding: (?P<name>\S*) ===[ \t]*")
_LOOKS_SO = re.compile(r"\\*=== finding: ")
_ESCAPED = re.compile(r"\\+=== finding: ")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}\.md")


@dataclass(frozen=True, slots=True)
class Bundled:
    """A finding of a bundle: its text, and the line of the bundle that its file name stands in."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Import:
    """What an import did: files written, and those that were there with the same content."""

    written: tuple[Path, ...]
    same: tuple[Path, ...]


def join_findings(files: dict[str, str]) -> str:
    """One text of several findings by file name; :func:`split_findings` gives them back.

    Every finding ends in a line break there.
    """
    return "".join(f"=== finding: {name} ===\n{_escaped(text)}\n" for name, text in files.items())


def split_findings(text: str, where: Path) -> dict[str, Bundled]:
    """The findings in a text by file name.

    Raises SiteError with every fault and its line: a name that is none or stands twice, text before
    the first finding, no finding at all.
    """
    found: dict[str, tuple[int, list[str]]] = {}
    faults: list[Fault] = []
    into: list[str] | None = None
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        separator = _SEPARATOR.fullmatch(line)
        if separator is None:
            if into is not None:
                into.append(line[1:] if _ESCAPED.match(line) else line)
            elif line.strip():
                faults.append(
                    Fault(where, number, "text before the first line of `=== finding: name.md ===`")
                )
                into = []
            continue
        name = separator["name"]
        if not _NAME.fullmatch(name) or ".." in name:
            faults.append(
                Fault(where, number, f"{shown(repr(name))} is no name such as tide-trigger.md")
            )
        elif name in found:
            faults.append(Fault(where, number, f"a second finding is named {name}; rename one"))
        into = []
        found[name] = (number, into)
    if not found and not faults:
        faults.append(Fault(where, None, "holds no finding; was it exported by triage.html?"))
    refuse(faults)
    return {
        name: Bundled("\n".join(lines).rstrip("\n") + "\n", line)
        for name, (line, lines) in found.items()
    }


def import_findings(bundle: Path, out: Path) -> Import:
    """Writes the findings of a bundle into a folder, each into a file of its own.

    Raises SiteError, before anything is written, if a finding has a fault that shows without runs,
    by its line in the bundle, or a file of its name is there with other content; ConfigError if
    the bundle cannot be read.
    """
    try:
        text = bundle.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{bundle}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{bundle}: is not UTF-8 text: {error}") from error
    files = split_findings(text, bundle)
    faults: list[Fault] = []
    written: list[Path] = []
    same: list[Path] = []
    for name, finding in files.items():
        path, content = out / name, finding.text.encode("utf-8")
        faults += [_in_bundle(fault, bundle, finding) for fault in read_finding(content, path)[1]]
        standing = _standing(path)
        if standing is None:
            written.append(path)
        elif standing == content:
            same.append(path)
        else:
            faults.append(
                Fault(path, None, "is there already and differs; rename or remove one of the two")
            )
    refuse(faults)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in written:
            write_atomically(path, files[path.name].text)
    except OSError as error:
        raise SiteError(f"{out}: findings cannot be written: {error.strerror or error}") from error
    return Import(tuple(written), tuple(same))


def _in_bundle(fault: Fault, bundle: Path, finding: Bundled) -> Fault:
    """A fault of a finding where it can be mended: nothing was written yet."""
    said = f"{fault.file.name}: {fault.text}"
    return replace(fault, file=bundle, line=finding.line + (fault.line or 0), text=said)


def _standing(path: Path) -> bytes | None:
    """What is at a path now, as far as it could be a finding; None if nothing is."""
    if not (path.exists() or path.is_symlink()):
        return None
    try:
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError:  # a folder, or closed: certainly not the same
        return b""


def _escaped(text: str) -> str:
    return "\n".join(
        f"\\{line}" if _LOOKS_SO.match(line) else line for line in text.rstrip("\n").split("\n")
    )
