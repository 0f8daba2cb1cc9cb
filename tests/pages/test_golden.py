"""The pages of a fixed run are byte for byte the same in two builds, and those that are kept here.

A change that means to alter pages rewrites the files of ``golden/`` by

    WEIGHTATLAS_GOLDEN=write python -m pytest tests/pages/test_golden.py

and their difference is read as part of the change.
"""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path

import pytest

from builder import __version__
from builder.config import SiteSettings
from builder.pages import build_site
from builder.pages.packed import unpacked
from tests.pages.conftest import files_of
from tests.pages.fixture import make_run

GOLDEN = Path(__file__).parent / "golden"
REWRITE = "WEIGHTATLAS_GOLDEN=write python -m pytest tests/pages/test_golden.py"
#: Files of the site that are kept, by the names they have here.
KEPT = {
    "home.html": "index.html",
    "model.html": "m/pico-chat/index.html",
    "direction.html": "m/pico-chat/l01.down_proj.u00.html",
    "direction-script.json": "m/pico-chat/d/l01.down_proj.u00.js",
    "direction.json": "api/pico-chat/l01.down_proj.u00.json",
    "search.js": "data/search-pico-chat.js",
}
#: Lines of a difference that a failure shows, and characters of a line.
MOST_LINES, MOST_LETTERS = 60, 240


def build(folder: Path, workers: int) -> Path:
    """The site of a run that is made anew, always of the same seed."""
    run = make_run(folder / "run", name="pico-chat", title="Pico Chat", seed=5, layers=2, ranks=1,
                   documents=12, with_base=True)  # fmt: skip
    build_site([run], folder / "site", SiteSettings(examples=2, context=8), workers=workers)
    return folder / "site"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One build of it."""
    return build(tmp_path_factory.mktemp("golden"), workers=1)


def kept(site: Path, path: str) -> str:
    """A file of the site as it is kept: what differs between machines is left out.

    That is the version of the program, and how gzip packs the file of a direction, of which the
    content is kept: its header, the pieces of each text, and the activations in rows of 40 bytes.
    """
    content = (site / path).read_bytes()
    if "/d/" in path:
        header, pieces, levels = unpacked(content)
        rows = [levels[at : at + 40].hex() for at in range(0, len(levels), 40)]
        return _lines({"header": header, "pieces": pieces, "levels": rows})
    text = content.decode("utf-8")
    if path.endswith(".json"):
        return _lines(json.loads(text))
    return text.replace(f"weightatlas {__version__}.", "weightatlas VERSION.")


def _lines(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def difference(before: str, after: str, name: str) -> str:
    """What tells two texts apart, tag by tag; empty for equal ones."""
    one, two = (text.replace("><", ">\n<").splitlines() for text in (before, after))
    lines = list(difflib.unified_diff(one, two, f"golden/{name}", "built now", n=1, lineterm=""))
    shown = [line[:MOST_LETTERS] for line in lines[:MOST_LINES]]
    further = len(lines) - len(shown)
    return "\n".join([*shown, *([f"... and {further} further lines"] if further else [])])


def test_two_runs_of_one_seed_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = files_of(build(tmp_path, workers=2))
    first = files_of(built)
    assert sorted(again) == sorted(first)
    assert [name for name in first if again[name] != first[name]] == []


@pytest.mark.parametrize("name", KEPT)
def test_pages_are_those_that_are_kept(built: Path, name: str) -> None:
    text = kept(built, KEPT[name])
    if os.environ.get("WEIGHTATLAS_GOLDEN") == "write":
        (GOLDEN / name).write_text(text, encoding="utf-8", newline="\n")
    before = (GOLDEN / name).read_bytes().decode("utf-8")
    if text != before:
        pytest.fail(
            f"{difference(before, text, name)}\n\nIf that is meant: {REWRITE}", pytrace=False
        )


def test_nothing_else_is_kept() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(KEPT)


def test_a_difference_is_shown_by_its_lines() -> None:
    before, after = "<p>one<p><b>two</b><p>three", "<p>one<p><b>2</b><p>three"
    assert difference(before, before, "x.html") == ""
    told = difference(before, after, "x.html").splitlines()[2:]
    assert told == ["@@ -1,3 +1,3 @@", " <p>one<p>", "-<b>two</b>", "+<b>2</b>", " <p>three"]
    many = "".join(f"{number}\n" for number in range(100))
    assert difference("", many, "x.html").endswith(f"... and {103 - MOST_LINES} further lines")
