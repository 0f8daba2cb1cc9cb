"""Building a site: same bytes, whole links, and a folder that is never harmed."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import html5lib
import pytest

from builder.comparison import compare_runs
from builder.errors import SiteError, StoreError
from builder.pages import build_site
from builder.pages.folder import MANIFEST
from builder.pages.spans import LONGEST_LABEL
from builder.records import HAND
from builder.store import RunStore
from tests.pages.conftest import SMALL, files_of
from tests.pages.packing import packed
from tests.pages.texts import HIDDEN, LONG_WORD


def pages_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


class _Links(HTMLParser):
    """Every address and every id of a page, and its tags in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.attributes: set[str] = set()
        self.scripts: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.add(tag)
        self.attributes |= set(named)
        self.addresses += [
            named[key] or "" for key in ("href", "src", "data-script") if key in named
        ]
        if "id" in named:
            self.ids.append(named["id"] or "")
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "script":
            self.scripts.append(named)


@pytest.mark.parametrize("which", ["site", "hostile_site"])
def test_every_internal_link_resolves(which: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(which)
    read = {page: _Links(page.read_text(encoding="utf-8")) for page in pages_of(folder)}
    for page, found in read.items():
        for address in found.addresses:
            parts = urlsplit(address)
            assert not parts.scheme, f"{page.name}: {address} leaves the site"
            assert not parts.netloc, f"{page.name}: {address} leaves the site"
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
            assert target.is_file(), f"{page}: {address} leads nowhere"
            if parts.fragment:
                assert unquote(parts.fragment) in read[target].ids, f"{page}: {address}: no such id"


@pytest.mark.parametrize("which", ["site", "hostile_site"])
def test_pages_hold_no_inline_script_style_or_handler(
    which: str, request: pytest.FixtureRequest
) -> None:
    for page in pages_of(request.getfixturevalue(which)):
        text = page.read_text(encoding="utf-8")
        found = _Links(text)
        assert text.index("Content-Security-Policy") < text.index("<title>")
        assert not {name for name in found.attributes if name.startswith("on") or name == "style"}
        assert not found.tags & {"style", "iframe", "object", "embed", "base"}
        assert all(script.get("src") for script in found.scripts)
        assert len(found.ids) == len(set(found.ids)), f"{page}: an id stands twice"


def faults_of(html: str) -> list[str]:
    """What the rules of HTML call parse errors, with their places."""
    parser = html5lib.HTMLParser()
    parser.parse(html)
    return [f"line {place[0]}: {code} {data}" for place, code, data in parser.errors]


@pytest.mark.parametrize("which", ["site", "hostile_site", "atlas"])
def test_every_page_parses_without_an_error(which: str, request: pytest.FixtureRequest) -> None:
    for page in pages_of(request.getfixturevalue(which)):
        assert faults_of(page.read_text(encoding="utf-8")) == [], page


@pytest.mark.parametrize(
    "html",
    ["<p></div>", "<p a=1 a=2>", "<table><p>", "<p>&nosuch;", "<b/>", "<p><a><a>", "<!-- -- >"],
)
def test_what_is_no_html_is_told(html: str) -> None:
    assert faults_of(f"<!doctype html><title>t</title>{html}")
    assert faults_of("<!doctype html><title>t</title><p>text") == []


def test_headings_follow_each_other_without_gaps(site: Path) -> None:
    for page in pages_of(site):
        levels = _Links(page.read_text(encoding="utf-8")).headings
        assert levels.count(1) == 1
        steps = pairwise(levels)
        assert all(after - before <= 1 for before, after in steps), f"{page}: {levels}"


def test_no_file_of_a_hostile_site_holds_a_hidden_character(hostile_site: Path) -> None:
    written = [
        path.read_text(encoding="utf-8")
        for path in hostile_site.rglob("*")
        if path.suffix in {".html", ".js", ".json"} and path.parent.name != "static"
    ]
    scripts = [*hostile_site.glob("m/*/d/*.js"), *hostile_site.glob("m/*/texts.js")]
    headers = [packed(path.read_bytes()).header for path in scripts]
    texts = [text for header in headers for text, _, _ in header.pop("texts")]
    # What scripts hold in letters. In texts U+0000 stands on both sides of a name.
    inside = [json.dumps(header, ensure_ascii=False) for header in headers]
    assert all(text.count("\0") % 2 == 0 for text in texts)
    inside += ["".join(text.split("\0")[::2]) for text in texts]
    named = "".join(text.split("\0")[at] for text in texts for at in range(1, text.count("\0"), 2))
    for found, names in (("".join(written), True), ("".join(inside), False)):
        for character, name in HIDDEN.items():
            assert (name in found) or not names
            assert name in named
            if character != "\u200d":  # joins the parts of emoji, where it may stay
                assert character not in found, f"{name} is in a file as it is"


def test_titles_that_are_markup_stay_text(hostile_site: Path) -> None:
    home = (hostile_site / "index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;window.owned=0&lt;/script&gt;" in home
    assert "{{ 7*7 }}" in home
    assert "<script>window" not in home


def test_search_scripts_cannot_end_their_element(hostile_site: Path) -> None:
    (script,) = (hostile_site / "data").glob("search-*.js")
    text = script.read_text(encoding="utf-8")
    assert "<" not in text
    assert text.startswith('WA.add("hostile",{')
    data = json.loads(text[len('WA.add("hostile",') : -len(");\n")])
    directions = len(data["ids"].split("\n"))
    assert len(data["labels"].split("\n")) == len(data["tokens"].split("\n")) == 2 * directions


def test_a_very_long_label_is_whole_on_its_own_page_and_short_everywhere_else(
    hostile_site: Path,
) -> None:
    too_long = "w" * (LONGEST_LABEL + 1)
    shortened = "w" * 100 + "…"
    model = hostile_site / "m" / "hostile"
    # On the home page it stands only if its pole stands out.
    assert too_long not in (hostile_site / "index.html").read_text(encoding="utf-8")
    for path in (hostile_site / "directions.html", model / "index.html"):
        text = path.read_text(encoding="utf-8")
        assert too_long not in text, path.name
        assert shortened in text, path.name
    (script,) = (hostile_site / "data").glob("search-*.js")
    data = json.loads(script.read_text("utf-8")[len('WA.add("hostile",') : -len(");\n")])
    assert max(map(len, data["labels"].split("\n"))) <= LONGEST_LABEL
    whole = 0
    for page in model.glob("l0*.html"):
        text = page.read_text(encoding="utf-8")
        head = text[: text.index('<main id="content"')]
        assert too_long not in head, f"{page.name}: its title is that long"
        for heading in re.findall(r"<h2 .*?</h2>", text, re.DOTALL):
            assert too_long not in heading, page.name
        whole += text.count(f'<p class="whole" tabindex="0"><bdi>before {LONG_WORD} after')
    assert whole > 0


def test_a_layer_is_named_as_in_ids_and_not_counted_from_one(site: Path) -> None:
    text = (site / "m" / "pico-chat" / "l00.o_proj.u00.html").read_text(encoding="utf-8")
    assert "<dt>layer</dt><dd>L00 <small>of 4 layers</small></dd>" in text
    assert "0 of 4 layers" not in text
    model = (site / "m" / "pico-chat" / "index.html").read_text(encoding="utf-8")
    assert "<figcaption>L00</figcaption>" in model


class _Bar:
    """Stands for a progress bar and keeps what it is told."""

    def __init__(self, *said: object, **settings: object) -> None:
        self.said, self.settings, self.done = said, settings, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.settings["closed"] = True

    def update(self, n: int = 1) -> None:
        self.done += n


def test_progress_counts_every_page_that_is_made(
    tiny_folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[_Bar] = []

    def made(*said: object, **settings: object) -> _Bar:
        bars.append(_Bar(*said, **settings))
        return bars[-1]

    monkeypatch.setattr("builder.pages.site.tqdm", made)
    report = build_site(tiny_folders, tmp_path / "site", SMALL)
    (bar,) = bars
    assert bar.said == (None, "site")
    assert bar.settings == {
        "total": report.pages, "unit": " pages", "delay": 1, "disable": None, "closed": True,
    }  # fmt: skip
    assert bar.done == report.made == report.pages == len(pages_of(tmp_path / "site"))
    # Those of directions are there; made again are what may show something of all of them.
    again = build_site(tiny_folders, tmp_path / "site", SMALL)
    assert bars[1].done == bars[1].settings["total"] == again.made == len(tiny_folders) + 8
    assert again.pages == report.pages


def test_a_build_off_a_terminal_prints_nothing(
    tiny_folders: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build_site(tiny_folders, tmp_path / "site", SMALL)
    assert capfd.readouterr() == ("", "")


def test_the_same_runs_give_the_same_bytes(
    run_folders: list[Path], site: Path, tmp_path: Path
) -> None:
    found = compare_runs(run_folders)
    build_site(run_folders, tmp_path / "again", SMALL, found.near, found.groups)
    assert files_of(tmp_path / "again") == files_of(site)


def test_one_new_label_rewrites_only_what_shows_it(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_folders[0], run)
    out = tmp_path / "site"
    build_site([run], out, SMALL)
    before = files_of(out)
    with RunStore(run / "run.duckdb", read_only=False) as store:
        labels, failures = store.labels(candidates=True), store.label_failures()
        changed = next(at for at, label in enumerate(labels) if label.labeler == HAND)
        direction = labels[changed].direction
        labels[changed] = dataclasses.replace(labels[changed], explanation="Something new.")
        store.replace_labels([*labels, *failures])
    build_site([run], out, SMALL)
    after = files_of(out)
    assert {name for name in after if after[name] != before.get(name)} == {
        f"m/pico-chat/{direction.lower()}.html",
        f"api/pico-chat/{direction.lower()}.json",
        "api/pico-chat/labels.parquet",
        # What tells the size and digest of that table.
        "api/index.json",
        "downloads.html",
        MANIFEST,
    }


def test_two_runs_of_one_name_and_runs_that_are_none_are_refused(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(SiteError, match="both named 'pico-chat'"):
        build_site([tiny_folders[0], tiny_folders[0]], tmp_path / "out", SMALL)
    with pytest.raises(StoreError, match="no database"):
        build_site([tmp_path], tmp_path / "out", SMALL)
    with pytest.raises(SiteError, match="no runs"):
        build_site([], tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_a_run_that_says_nothing_of_itself_is_rendered_all_the_same(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    run = tmp_path / "bare-run"
    run.mkdir()
    shutil.copy(tiny_folders[1] / "run.duckdb", run / "run.duckdb")
    original = RunStore.meta

    def bare(store: RunStore) -> dict[str, object]:
        return {"schema_version": original(store)["schema_version"]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunStore, "meta", bare)
        report = build_site([run], tmp_path / "site", SMALL)
    assert (tmp_path / "site" / "m" / "bare-run" / "index.html").is_file()
    assert report.pages >= 8


def test_what_was_left_out_is_on_the_models_page(site: Path) -> None:
    text = (site / "m" / "pico-chat" / "index.html").read_text(encoding="utf-8")
    for expected in ("sink", "bos", "malformed", "empty", "cut at max_tokens", "L03 22", "CC0-1.0"):
        assert expected in text


def test_pages_name_no_folder_of_this_machine(site: Path) -> None:
    for page in pages_of(site):
        assert "/home/somebody" not in page.read_text(encoding="utf-8")
    assert "…/models/pico-chat" in (site / "m" / "pico-chat" / "index.html").read_text("utf-8")


def test_failures_and_missing_patterns_are_shown_as_what_they_are(site: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "m").rglob("l0*.html"))
    assert "no consistent pattern" in pages
    assert "gave no usable answer: truncated" in pages
    assert "keyword statistics, not a language model" in pages
    assert "not labelled yet" in pages
    script = (site / "data" / "search-pico-chat.js").read_text(encoding="utf-8")
    assert "The examples all seem to" not in script
