"""How are directions and examples cited? ``run/direction``, ``#pole`` and ``/document`` after it.

    demo-llama/L00.down_proj.u00             the direction
    demo-llama/L00.down_proj.u00#max         one of its poles
    demo-llama/L00.down_proj.u00#max/12      document 12 among the examples of that pole
    demo-llama/L00.down_proj.u00@96199d0f    only if its content hash begins so; before any #

In the body of a finding the same stands in double brackets, with a text of its own after a bar:
``[[demo-llama/L00.down_proj.u00#max|the trigger]]``.
"""

from __future__ import annotations

import re

from builder.errors import shown
from builder.findings.finding import Citation

#: Hex digits of a content hash that a citation must give at least.
SHORTEST_HASH = 8
#: The longest citation that is looked at, text included.
LONGEST = 400
_FORM = re.compile(
    r"(?P<run>[a-z0-9][a-z0-9._-]*)/(?P<direction>[^\s#@|\[\]/]+)"
    r"(?:@(?P<hash>[^\s#|\[\]]*))?"
    r"(?:\#(?P<pole>[^\s/|\[\]]*)(?:/(?P<document>[^\s|\[\]]*))?)?"
)
_HASH = re.compile(rf"[0-9a-f]{{{SHORTEST_HASH},64}}")
_DOCUMENT = re.compile(r"[0-9]{1,18}")


class CitationError(ValueError):
    """A text that is no citation; the message says why."""


def parse_citation(written: str, line: int) -> Citation:
    """The citation that a text stands for; raises CitationError if it is none.

    A link text, after a bar, is taken off first. Nothing is looked up.
    """
    target, bar, text = written.partition("|")
    found = _FORM.fullmatch(target.strip())
    if found is None:
        raise CitationError(
            f"{shown(repr(written))} is no citation; write run/direction, run/direction#pole or "
            "run/direction#pole/document"
        )
    content_hash, pole, document = found["hash"], found["pole"], found["document"]
    if content_hash is not None and not _HASH.fullmatch(content_hash):
        raise CitationError(
            f"{shown(repr(content_hash))} after the @ is no content hash: at least "
            f"{SHORTEST_HASH} of the hex digits on the direction's page, in lower case"
        )
    if pole is not None and pole not in ("max", "min"):
        raise CitationError(f"{shown(repr(pole))} is no pole; a direction has max and min")
    if document is not None and not _DOCUMENT.fullmatch(document):
        raise CitationError(
            f"{shown(repr(document))} is no document; write the number after the # of its example"
        )
    if bar and not text.strip():
        raise CitationError(f"{shown(repr(written))} has no text after the bar")
    return Citation(
        run=found["run"],
        direction=found["direction"],
        line=line,
        content_hash=content_hash or "",
        pole=None if pole is None else "max" if pole == "max" else "min",
        document=None if document is None else int(document),
        text=text.strip(),
    )
