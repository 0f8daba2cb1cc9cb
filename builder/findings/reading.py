"""Which findings does a folder hold? Every ``*.md`` in it but README.md, checked one by one.

A fault in one file does not keep the others from being read: whoever writes findings gets all
faults at once.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from builder.errors import SiteError, shown
from builder.findings.body import Body, parse_body
from builder.findings.citation import CitationError, parse_citation
from builder.findings.finding import (
    SEVERITIES,
    STATUSES,
    Citation,
    Fault,
    Finding,
    Severity,
    Status,
    unknown,
)
from builder.findings.front_matter import FrontMatter, FrontMatterError, split_file

#: Bytes of the largest file that is read.
LARGEST = 100_000
#: May lie among findings and is none.
NO_FINDING = frozenset({"readme.md"})


def _date(value: Any) -> Any:
    """A date in quotes is one, too."""
    if isinstance(value, str):
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            return value
    return value


_Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
_Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]
#: A citation, or ``{id, hash}``.
_Cited = str | dict[str, str]


class _Entries(BaseModel):
    """The front matter of a finding."""

    model_config = ConfigDict(extra="forbid", strict=True)

    claim: _Line
    severity: Severity
    status: Status
    reviewer: _Line
    date: Annotated[datetime.date, BeforeValidator(_date)]
    directions: list[_Cited] = Field(default_factory=list)
    examples: list[str] = Field(default_factory=list)
    tags: list[_Tag] = Field(default_factory=list, max_length=20)


#: What the front matter may say.
KEYS = tuple(_Entries.model_fields)


def read_folder(folder: Path) -> tuple[list[tuple[Finding, Body]], list[Fault], list[str]]:
    """(findings with their parsed bodies, faults, warnings) of a folder, by file name.

    A warning names what lies there and is not read. Raises SiteError if there is no such folder.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise SiteError(
            f"{folder}: no folder of findings: {error.strerror or error}; make it, or leave "
            "--findings and site.findings away"
        ) from error
    found: list[tuple[Finding, Body]] = []
    faults: list[Fault] = []
    warnings: list[str] = []
    names: dict[str, Path] = {}
    for entry in entries:
        if entry.name.startswith(".") or entry.name.casefold() in NO_FINDING:
            continue
        if entry.suffix.lower() != ".md":
            warnings.append(f"{entry}: not read; findings are *.md files in the folder itself")
            continue
        name = entry.stem.lower()
        fault = _name_fault(entry, name, names.setdefault(name, entry))
        if fault:
            faults.append(Fault(entry, None, fault))
            continue
        read, own = read_file(entry, folder)
        faults += own
        if read is not None:
            found.append(read)
    return found, faults, warnings


def _name_fault(entry: Path, name: str, first: Path) -> str:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    if not set(name) <= allowed or name[:1] in ("", ".", "-"):
        return "its name becomes an address; use a to z, 0 to 9, '.', '_' and '-' only"
    if name == "index":
        return "its page would be the list of all findings; give it another name"
    if first != entry:
        return f"its page would be that of {first.name}; give it another name"
    return ""


def read_file(path: Path, folder: Path) -> tuple[tuple[Finding, Body] | None, list[Fault]]:
    """The finding of one file in ``folder``, or None, and every fault of it."""
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return None, [
                Fault(path, None, "is a link that leads out of the folder; copy the file")
            ]
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, RuntimeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        return None, [Fault(path, None, f"cannot be read: {said}")]
    return read_finding(content, path)


def read_finding(content: bytes, path: Path) -> tuple[tuple[Finding, Body] | None, list[Fault]]:
    """The finding that a file at ``path`` with this content would be, or None, and every fault."""
    if len(content) > LARGEST:
        return None, [Fault(path, None, f"is larger than {LARGEST:,} bytes; shorten or split it")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return None, [Fault(path, line, f"is not UTF-8 text: {error.reason}; save it as UTF-8")]
    try:
        front = split_file(text)
    except FrontMatterError as error:
        return None, [Fault(path, error.line, str(error))]
    body = parse_body(front.body, front.body_line)
    faults = [Fault(path, line, said) for line, said in body.faults]
    try:
        entries = _Entries.model_validate(dict(front.values))
    except ValidationError as error:
        return None, [*(_fault(path, front, dict(item)) for item in _once(error)), *faults]
    directions = _citations(path, front, "directions", entries.directions, faults)
    examples = _citations(path, front, "examples", entries.examples, faults)
    if not (directions or examples or body.citations or faults):
        faults.append(Fault(path, 1, "cites no direction; name one under `directions`"))
    if faults:
        return None, faults
    finding = Finding(
        name=path.stem.lower(),
        file=path,
        claim=" ".join(entries.claim.split()),
        severity=entries.severity,
        status=entries.status,
        reviewer=entries.reviewer,
        date=entries.date,
        tags=tuple(dict.fromkeys(entries.tags)),
        citations=(*directions, *examples, *body.citations),
        body=front.body,
        body_line=front.body_line,
    )
    return (finding, body), []


def _citations(
    path: Path, front: FrontMatter, key: str, written: list[Any], faults: list[Fault]
) -> list[Citation]:
    found = []
    for at, item in enumerate(written):
        line = front.line_of(key, at)
        try:
            text = _text_of(item)
            if "|" in text:
                raise CitationError(f"{shown(repr(text))}: a text after a bar belongs to the body")
            citation = parse_citation(text, line)
            if key == "examples" and citation.document is None:
                raise CitationError(f"{shown(repr(text))} names no document; write #pole/document")
            if key == "directions" and citation.document is not None:
                raise CitationError(f"{shown(repr(text))} is an example; put it under `examples`")
        except CitationError as error:
            faults.append(Fault(path, line, f"{key}: {error}"))
        else:
            found.append(citation)
    return found


def _text_of(item: str | dict[str, str]) -> str:
    """A citation as text; of ``{id, hash}`` with the hash in its place."""
    if isinstance(item, str):
        return item
    if item.keys() - {"id", "hash"} or "id" not in item:
        raise CitationError(f"{shown(repr(item))}: a direction is `run/direction` or {{id, hash}}")
    target, sharp, pole = item["id"].partition("#")
    if "hash" not in item:
        return item["id"]
    if "@" in target:
        raise CitationError(f"{shown(repr(item))} gives a hash twice")
    return f"{target}@{item['hash']}{sharp}{pole}"


def _once(error: ValidationError) -> Iterator[dict[str, Any]]:
    """Faults without the second one that each further kind of an entry brings."""
    seen = set()
    for item in error.errors():
        if item["loc"][:2] not in seen:
            seen.add(item["loc"][:2])
            yield dict(item)


def _fault(path: Path, front: FrontMatter, item: dict[str, Any]) -> Fault:
    key, *rest = item["loc"]
    line = front.line_of(str(key), rest[0] if rest and isinstance(rest[0], int) else None)
    found = shown(repr(item["input"]))
    if item["type"] == "extra_forbidden":
        return Fault(path, line, unknown(str(key), KEYS))
    if item["type"] == "missing":
        return Fault(path, 1, f"{key}: needed, but missing")
    if item["type"] == "literal_error":
        known = SEVERITIES if key == "severity" else STATUSES
        return Fault(path, line, f"{key}: {unknown(item['input'], known)}")
    if item["type"].startswith("date"):
        return Fault(path, line, f"{key}: no date such as 2026-11-21 (found {found})")
    return Fault(path, line, f"{key}: {item['msg']} (found {found})")
