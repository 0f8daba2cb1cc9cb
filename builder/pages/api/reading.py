"""What does a built site say of itself? Its JSON files, read back and checked.

Files may come from anywhere and mean harm: whatever is wrong with one is a SiteError that names it.
Only files whose names follow from the form of a site are opened, not those that a file names.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from builder.errors import SiteError, shown
from builder.pages import links
from builder.pages.api.form import SCHEMA_VERSION
from builder.pages.api.run_form import RunFile, SiteFile
from builder.pages.spans import plain

#: A file of more bytes is none of ours: a run of 100,000 directions takes about 70 MB.
LARGEST = 500 * 2**20
_RUN = re.compile(r"[a-z0-9_][a-z0-9._-]{0,99}")
_HALF = re.compile("[\ud800-\udfff]")

_SITE: TypeAdapter[SiteFile] = TypeAdapter(SiteFile)
_RUN_FILE: TypeAdapter[RunFile] = TypeAdapter(RunFile)

Form = TypeVar("Form")


def read_site(folder: Path) -> tuple[SiteFile, dict[str, RunFile]]:
    """The site in a folder and its runs by name, in the order of the site.

    Half surrogate pairs, which no text can hold, come back named as on pages. Raises SiteError if
    the folder holds no site with data, or a file that is damaged or of another version.
    """
    place = folder / "api" / "index.json"
    if not place.is_file():
        raise SiteError(
            f"{folder}: holds no site with data (no api/index.json); render it again with this "
            "weightatlas"
        )
    site = _checked(_SITE, place)
    runs: dict[str, RunFile] = {}
    for model in site["models"]:
        name = model["run"]
        if not _RUN.fullmatch(name) or name in runs:
            raise SiteError(
                f"{place}: {shown(name)!r} names no run, or one that stands there twice"
            )
        runs[name] = _run(folder / links.api_file(name, "index"), name)
    return site, runs


def _run(place: Path, name: str) -> RunFile:
    run = _checked(_RUN_FILE, place)
    if run["run"] != name:
        raise SiteError(f"{place}: is of the run {shown(run['run'])!r}, expected {name!r}")
    seen: set[str] = set()
    for direction in run["directions"]:
        if direction["id"] in seen:
            raise SiteError(f"{place}: the direction {shown(direction['id'])!r} stands there twice")
        seen.add(direction["id"])
        if set(direction["poles"]) != {"max", "min"}:
            raise SiteError(f"{place}: {shown(direction['id'])!r} has not both poles")
    return run


def _checked(form: TypeAdapter[Form], place: Path) -> Form:
    held = _loaded(place)
    version = held.get("schema_version") if isinstance(held, dict) else None
    if version != SCHEMA_VERSION:
        raise SiteError(
            f"{place}: has schema version {shown(repr(version))}, this weightatlas reads "
            f"{SCHEMA_VERSION}; render the site again"
        )
    try:
        return form.validate_python(held)
    except (ValidationError, RecursionError) as error:
        raise SiteError(f"{place}: {_fault(error)}; render the site again") from error


def _loaded(place: Path) -> Any:
    try:
        size = place.stat().st_size
        if size > LARGEST:
            raise SiteError(
                f"{place}: {size:,} bytes; no such file of a site is larger than {LARGEST:,}"
            )
        return _whole(json.loads(place.read_bytes(), parse_constant=_refused))
    except OSError as error:
        raise SiteError(f"{place}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SiteError(f"{place}: not JSON as a site has it: {_fault(error)}") from error


def _whole(value: Any) -> Any:
    """The value with half surrogate pairs named."""
    if isinstance(value, str):
        return _HALF.sub(lambda match: plain(match[0]), value)
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{shown(where)}: {shown(first['msg'])}"
    return shown(str(error))
