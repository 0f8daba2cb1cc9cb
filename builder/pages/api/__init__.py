"""What does a site offer to programs? Every direction, run and the site itself as JSON files.

``form``       what stands in the file of a direction, key by key
``run_form``   the same for a run and the site
``schemas``    the same as JSON Schema, which the site ships
``direction``  the file of a direction
``model``      the files of a run and of the site
``written``    how values become bytes
``reading``    the files of a built site, read back
``changes``    what changed between two sites

Files are written direction by direction, some read at once, so memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Iterator

from builder.errors import SiteError
from builder.pages import links
from builder.pages.api.direction import direction_file
from builder.pages.api.form import SCHEMA_VERSION
from builder.pages.api.model import run_file, site_file, sources
from builder.pages.api.schemas import schema_files
from builder.pages.api.written import as_json, without_nothing
from builder.pages.nearby import Neighbourhood
from builder.pages.views import RunView
from builder.records import ANY_ROLE
from builder.store import AT_ONCE, RunStore

__all__ = [
    "SCHEMA_VERSION",
    "api_files",
    "as_json",
    "schema_files",
    "site_file",
    "sources",
    "without_nothing",
]

#: Names that files of the site itself have in ``api/``.
_TAKEN = frozenset({"schema", "index.json"})


def api_files(run: RunView, store: RunStore, nearby: Neighbourhood) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of the JSON file of every direction of a run, and of the run itself.

    Raises SiteError for a run whose name another file has.
    """
    if run.name in _TAKEN:
        raise SiteError(
            f"{run.folder}: a run of a site cannot be named {run.name!r}, which its data has; "
            "give it another `name` in its recipe"
        )
    for start in range(0, len(run.directions), AT_ONCE):
        items = run.directions[start : start + AT_ONCE]
        ids = [item.row.id for item in items]
        examples = store.examples_of(ids, role=ANY_ROLE)
        shares = store.sources_of(ids)
        for item in items:
            content = direction_file(
                run, item, nearby.of(run, item), examples[item.row.id], shares[item.row.id]
            )
            yield links.api_file(run.name, item.name), as_json(without_nothing(content))
    yield links.api_file(run.name, "index"), as_json(without_nothing(run_file(run)))
