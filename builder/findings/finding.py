"""What is a finding? A claim about directions: who makes it, how bad it is, and what shows it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from builder.errors import SiteError, shown
from builder.records import Pole

Severity = Literal["critical", "high", "medium", "low"]
Status = Literal["open", "confirmed", "rejected", "resolved"]
#: The worst first, as lists order them.
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
#: ``open``: claimed and not yet reviewed; ``confirmed`` and ``rejected``: reviewed by another;
#: ``resolved``: it held, and the model was changed since.
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Citation:
    """A direction of a run, one of its poles, or one document among the pole's examples.

    ``content_hash`` is empty or the beginning of the hash that the direction must have. ``line`` is
    where the citation stands in its file, from 1; ``text`` what a link to it says, if not its id.
    """

    run: str
    direction: str
    line: int
    content_hash: str = ""
    pole: Pole | None = None
    document: int | None = None
    text: str = ""

    @property
    def written(self) -> str:
        """The citation as one types it, without hash and text."""
        pole = f"#{self.pole}" if self.pole else ""
        document = "" if self.document is None else f"/{self.document}"
        return f"{self.run}/{self.direction}{pole}{document}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One file of findings. ``name`` is its file name in addresses, ``body`` its Markdown.

    ``citations`` are all of them: those under ``directions``, under ``examples``, in the body.
    ``body_line`` is the line of the file at which the body begins, from 1.
    """

    name: str
    file: Path
    claim: str
    severity: Severity
    status: Status
    reviewer: str
    date: datetime.date
    tags: tuple[str, ...]
    citations: tuple[Citation, ...]
    body: str
    body_line: int

    @property
    def page(self) -> str:
        """Path of its page inside the site."""
        return f"findings/{self.name}.html"

    @property
    def directions(self) -> tuple[Citation, ...]:
        """The first citation of every direction that it cites or cites an example of."""
        first: dict[tuple[str, str], Citation] = {}
        for item in self.citations:
            first.setdefault((item.run, item.direction), item)
        return tuple(first.values())

    @property
    def examples(self) -> tuple[Citation, ...]:
        """The first citation of every document at a pole: the pinned examples, in their order."""
        first: dict[str, Citation] = {}
        for item in self.citations:
            if item.document is not None:
                first.setdefault(item.written, item)
        return tuple(first.values())

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs whose directions it cites, each once."""
        return tuple(dict.fromkeys(item.run for item in self.citations))

    def cites(self, run: str, direction: str | None = None) -> bool:
        """Whether it cites the run, or this direction of it."""
        return any(
            item.run == run and (direction is None or item.direction == direction)
            for item in self.citations
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a file of findings; ``line`` is None where it is wrong as a whole."""

    file: Path
    line: int | None
    text: str

    def __str__(self) -> str:
        place = f"{self.file}" if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.text}"


def refuse(faults: Sequence[Fault]) -> None:
    """Raises SiteError with every fault on a line of its own, by file and line, if there is any."""
    if not faults:
        return
    ordered = sorted(faults, key=lambda fault: (str(fault.file), fault.line or 0))
    said = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise SiteError("\n  ".join([f"findings: {said}; correct the files:", *map(str, ordered)]))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings as lists show them: the worst first, of one severity the latest first."""
    return tuple(
        sorted(
            findings,
            key=lambda item: (
                SEVERITIES.index(item.severity),
                -item.date.toordinal(),
                item.name,
            ),
        )
    )


def unknown(value: object, known: Iterable[str]) -> str:
    """``unknown 'x'; known are a, b`` for messages."""
    return f"unknown {shown(repr(value))}; known are {', '.join(known)}"
