"""What does a site offer to programs? Every direction, run and the site itself as JSON files.

``form``       what stands in the file of a direction, key by key
``run_form``   the same for a run and the site
``schemas``    the same as JSON Schema, which the site ships
``direction``  the file of a direction
``model``      the files of a run and of the site
``written``    how values become bytes
``reading``    the files of a built site, read back
``changes``    what changed between two sites

The file of a direction is made with its page, from what was read for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.errors import SiteError
from builder.pages.api.direction import direction_file
from builder.pages.api.form import SCHEMA_VERSION
from builder.pages.api.model import run_file, site_file, sources
from builder.pages.api.schemas import schema_files
from builder.pages.api.written import as_json, without_nothing
from builder.pages.nearby import NearView
from builder.pages.views import DirectionView, RunView
from builder.records import Example
from builder.store import SourceShare

__all__ = [
    "SCHEMA_VERSION",
    "as_json",
    "direction_json",
    "run_json",
    "schema_files",
    "site_file",
    "sources",
    "without_nothing",
]

#: Names that files of the site itself have in ``api/``.
_TAKEN = frozenset({"schema", "index.json"})


def direction_json(
    run: RunView,
    item: DirectionView,
    near: NearView,
    examples: Sequence[Example],
    sources: Sequence[SourceShare],
) -> bytes:
    """The JSON file of a direction; see :func:`builder.pages.api.direction.direction_file`."""
    return as_json(without_nothing(direction_file(run, item, near, examples, sources)))


def run_json(run: RunView) -> bytes:
    """The JSON file of a run.

    Raises SiteError for a run whose name another file has.
    """
    if run.name in _TAKEN:
        raise SiteError(
            f"{run.folder}: a run of a site cannot be named {run.name!r}, which its data has; "
            "give it another `name` in its recipe"
        )
    return as_json(without_nothing(run_file(run)))
