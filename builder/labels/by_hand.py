"""Which labels has a person written? Those of ``labels.toml`` in the run folder.

The file is the truth and the database a copy of it: :func:`refresh` brings the copy up to date,
which takes neither model nor scan, and takes labels away that are no longer in the file. A fault in
the file is an error that names its place; nothing is guessed and nothing is left out.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import xxhash
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from builder.errors import ConfigError, shown
from builder.labels.visible import is_hidden
from builder.records import HAND, Label, Pole
from builder.store import RunStore

FILE = "labels.toml"
#: As for any label.
MAX_WORDS = 10

_Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]
_Remark = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]


class _Entry(BaseModel):
    """One ``[[label]]`` of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    direction: str
    pole: Pole
    #: Empty: there is no consistent pattern, which is an answer.
    text: _Line
    author: Annotated[_Line, Field(min_length=1)]
    date: datetime.date
    explanation: _Remark = ""


def refresh(folder: Path, database: Path) -> int:
    """How many hand-made labels a run has; brings its database up to date with ``labels.toml``.

    The database is opened for writing only when the file is another than that taken up last.
    Raises ConfigError for a fault in the file; then the database is as it was.
    """
    path = folder / FILE
    content = _read(path)
    wanted = xxhash.xxh3_128_hexdigest(content) if content is not None else None
    with RunStore(database) as store:
        known = store.label_fingerprint(HAND)
        if wanted == known or (wanted is None and not known):
            return sum(label.labeler == HAND for label in store.labels())
        labels = [] if content is None else read_labels(content, path, store.direction_index())
    with RunStore(database, read_only=False) as store:
        if not labels:
            store.forget_labels(HAND, fingerprint=wanted or "")
        else:
            store.replace_labels(labels, fingerprint=wanted or "")
    return len(labels)


def read_labels(content: bytes, where: Path, directions: Container[str]) -> list[Label]:
    """The labels of such a file; raises ConfigError with every fault on a line of its own.

    ``directions`` are the ids that the run has.
    """
    try:
        table = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: is not UTF-8 text: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    entries = table.pop("label", [])
    faults = [f"{shown(key)}: unknown; the file holds [[label]] entries only" for key in table]
    if not isinstance(entries, list):
        raise ConfigError(f"{where}: label: write each entry under a [[label]] of its own")
    labels: list[Label] = []
    seen: dict[tuple[str, Pole], int] = {}
    for number, raw in enumerate(entries, 1):
        place = _place(number, raw)
        try:
            entry = _Entry.model_validate(raw)
        except ValidationError as error:
            faults += [f"{place}: {_fault(dict(item))}" for item in error.errors()]
            continue
        found = list(_faults(entry, directions))
        first = seen.setdefault((entry.direction, entry.pole), number)
        if first != number:
            found.append(f"label {first} is of the same pole; keep one of them")
        faults += [f"{place}: {fault}" for fault in found]
        labels.append(_label(entry))
    if faults:
        raise ConfigError("\n  ".join([f"{where}:", *faults]))
    return labels


def _read(path: Path) -> bytes | None:
    """What is in the file; None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def _place(number: int, raw: Any) -> str:
    """``label 3 (L05.o_proj.u00 min)``, as far as it can be said."""
    if not isinstance(raw, Mapping):
        return f"label {number}"
    named = [str(raw[key]) for key in ("direction", "pole") if isinstance(raw.get(key), str)]
    return f"label {number} ({shown(' '.join(named))})" if named else f"label {number}"


def _fault(item: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{shown(name)}: unknown; known are {', '.join(_Entry.model_fields)}"
    if item["type"] == "missing":
        return f"{name}: needed, but missing"
    return f"{name or 'entry'}: {item['msg']} (found {shown(repr(item['input']))})"


def _faults(entry: _Entry, directions: Container[str]) -> Iterator[str]:
    if entry.direction not in directions:
        yield "direction: the run has none of that id"
    words = len(entry.text.split())
    if words > MAX_WORDS:
        yield f"text: has {words} words; a label has at most {MAX_WORDS}"
    if len(entry.text.splitlines()) > 1:
        yield "text: goes over several lines"
    # An explanation may have paragraphs; nothing may hold what cannot be seen.
    explanation = entry.explanation.replace("\r\n", "\n").replace("\n", "").replace("\t", "")
    for name, text in (
        ("text", entry.text),
        ("author", entry.author),
        ("explanation", explanation),
    ):
        hidden = next((character for character in text if is_hidden(character)), None)
        if hidden is not None:
            yield f"{name}: holds a control or invisible character, U+{ord(hidden):04X}"


def _label(entry: _Entry) -> Label:
    return Label(
        direction=entry.direction,
        pole=entry.pole,
        labeler=HAND,
        text=" ".join(entry.text.split()) or None,
        explanation=" ".join(entry.explanation.split()),
        author=entry.author,
        created=entry.date.isoformat(),
    )
