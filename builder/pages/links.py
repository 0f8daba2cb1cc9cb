"""Where does a page live? Names of files from ids, and relative addresses between pages.

Every address is relative and ends in a file name, so that a site works from disk, at the top of a
host and under any path of one. Ids come from outside: only ``[a-z0-9._-]`` reaches a file name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_UNSAFE = re.compile(r"[^a-z0-9._-]+")
_LONGEST = 80
#: Name of the page of directions that have none of their own; no direction's file has it.
SHELL = "direction"


def file_name(text: str) -> str:
    """``text`` as a file name without ending: lower case, ``[a-z0-9._-]``, never hidden or empty.

    ``L07.down_proj.u03`` gives ``l07.down_proj.u03``. A text that had to be changed beyond its
    case carries eight hex digits of its hash, so that two different texts stay different.
    """
    lowered = text.lower()
    name = _UNSAFE.sub("-", lowered).strip(".-_")[:_LONGEST]
    if name and name == lowered:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name}-{digest}" if name else digest


def unique_file_names(texts: Iterable[str], *, taken: Iterable[str] = ()) -> dict[str, str]:
    """A file name for every text, all different from each other and from ``taken``.

    Names that meet (texts that differ only in case) are told apart by a counter, in order.
    """
    used = set(taken)
    names: dict[str, str] = {}
    for text in texts:
        if text in names:
            continue
        name = wanted = file_name(text)
        counter = 2
        while name in used:
            name = f"{wanted}-{counter}"
            counter += 1
        used.add(name)
        names[text] = name
    return names


def root_of(page: str) -> str:
    """What leads from ``page`` (a path inside the site, ``/``-separated) back to the site's top."""
    return "../" * page.count("/")


def model_page(run: str) -> str:
    """Path of a model's page; ``run`` is its file name."""
    return f"m/{run}/index.html"


def direction_page(run: str, direction: str) -> str:
    """Path of a direction's page; both are file names."""
    return f"m/{run}/{direction}.html"


def shell_page(run: str) -> str:
    """Path of the page that shows a model's directions that have none of their own."""
    return f"m/{run}/{SHELL}.html"


def shelled(run: str, direction: str) -> str:
    """Address of a direction within that page; both are file names."""
    return f"{shell_page(run)}?d={direction}"


def shard_script(run: str, number: int) -> str:
    """Path of a script that holds several directions of a model; shards count from 1."""
    return f"m/{run}/s/{number}.js"


def names_script(run: str) -> str:
    """Path of the script that says in which order the directions of a model stand in shards."""
    return f"m/{run}/names.js"


def api_shard(run: str, number: int) -> str:
    """Path of the data of the directions of a shard: lines of JSON, packed."""
    return f"{api_folder(run)}/directions-{number}.jsonl.gz"


def direction_script(run: str, direction: str) -> str:
    """Path of the script file that a direction's page loads; both are file names."""
    return f"m/{run}/d/{direction}.js"


def search_script(run: str, part: int) -> str:
    """Path of a script that holds rows of a model for search; parts count from 1."""
    return _script("search", run, part)


def token_script(run: str, part: int) -> str:
    """Path of a script that holds rows of a model by token; parts count from 1."""
    return _script("tokens", run, part)


def labels_page(run: str, part: int) -> str:
    """Path of a page with labels of a model, where not all fit on one; parts count from 1."""
    return f"labels/{run}/{part}.html"


def _script(kind: str, run: str, part: int) -> str:
    # The number stands before the name, which may itself end in a number.
    return f"data/{kind}{part if part > 1 else ''}-{run}.js"


def texts_script(run: str) -> str:
    """Path of the random documents that the pages of a model's directions refer to."""
    return f"m/{run}/texts.js"


def api_file(run: str, name: str) -> str:
    """Path of the JSON file of a direction, or of a run (``index``); both are file names."""
    return f"{api_folder(run)}/{name}.json"


def api_folder(run: str) -> str:
    """Path of the folder that a run's data is in; ``run`` is its file name."""
    return f"api/{run}"


def triage_shard(run: str) -> str:
    """Path of the script that holds a model's directions for triage."""
    return f"data/triage-{run}.js"


def compare_page(group: str) -> str:
    """Path of the page that compares the models of a group; ``group`` is a file name."""
    return f"compare/{group}.html"


def pair_anchor(one: str, two: str) -> str:
    """Where on that page two models are compared; both are file names, which hold no tilde."""
    return f"{one}~{two}"
