"""How is the form of a site's JSON files told to others? As JSON Schema 2020-12."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from builder.pages.api.form import DirectionFile
from builder.pages.api.run_form import RunFile, SiteFile
from builder.pages.api.written import as_json

#: The schema of each kind of file, by its name in ``api/schema/``.
FORMS: dict[str, Any] = {"site": SiteFile, "run": RunFile, "direction": DirectionFile}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of one of FORMS."""
    return {"$schema": DIALECT, **TypeAdapter(FORMS[name]).json_schema(mode="serialization")}


def schema_files() -> Iterator[tuple[str, bytes]]:
    """Path and bytes of every schema."""
    for name in FORMS:
        yield f"api/schema/{name}.json", as_json(schema(name), indent=1)
