"""What tells of a site elsewhere: site map, feed, cards, citations, and the page for no page."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import xml.etree.ElementTree as ElementTree
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from builder import cli
from builder.config import Settings, SiteSettings, parse_settings
from builder.errors import ConfigError, SiteError
from builder.pages import build_site, feed
from builder.pages.card import SIZE, drawable, map_of, model_card, site_card
from builder.pages.cite import citation_cff
from builder.pages.feed import Entry, sitemap_files
from builder.pages.spans import HIDDEN, plain
from builder.pages.views import DirectionView, RunView
from builder.records import WRITERS

URL = "https://example.org/atlas/"
_MAP = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, tiny_folders: list[Path]) -> Path:
    """A site that knows its address and authors."""
    out = tmp_path_factory.mktemp("sites") / "site"
    known = SiteSettings(examples=2, context=4, url=URL, authors=("A. Reader", "An Institute"))
    build_site(tiny_folders, out, known)
    return out


def _said(run: RunView, text: str) -> DirectionView:
    """The first direction, with another text as the label of its max pole."""
    item = next(item for item in run.own if item.poles["max"].label)
    answer = item.poles["max"].answers[0]
    assert answer.label
    answers = (dataclasses.replace(answer, label=dataclasses.replace(answer.label, text=text)),)
    poles = item.poles | {"max": dataclasses.replace(item.poles["max"], answers=answers)}
    return dataclasses.replace(item, poles=poles)


# Site map and meta tags


def test_the_site_map_lists_every_page_once(published: Path) -> None:
    root = ElementTree.parse(published / "sitemap.xml").getroot()
    found = [place.text for place in root.iterfind("s:url/s:loc", _MAP)]
    pages = {place.relative_to(published).as_posix() for place in published.rglob("*.html")}
    assert sorted(map(str, found)) == sorted(f"{URL}{page}" for page in pages - {"404.html"})


def test_many_pages_take_several_site_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST", 2)
    files = dict(sitemap_files(["a.html", "b.html", "c.html", "404.html", "d.json"], URL))
    assert sorted(files) == ["sitemap-1.xml", "sitemap-2.xml", "sitemap.xml"]
    index = ElementTree.fromstring(files["sitemap.xml"])
    assert [place.text for place in index.iterfind("s:sitemap/s:loc", _MAP)] == [
        f"{URL}sitemap-1.xml", f"{URL}sitemap-2.xml",
    ]  # fmt: skip
    pages = [
        place.text
        for name in ("sitemap-1.xml", "sitemap-2.xml")
        for place in ElementTree.fromstring(files[name]).iterfind("s:url/s:loc", _MAP)
    ]
    assert pages == [f"{URL}{page}" for page in ("a.html", "b.html", "c.html")]


def test_every_page_names_its_address_and_a_card_that_is_there(published: Path) -> None:
    for page in published.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        path = page.relative_to(published).as_posix()
        assert f'<link rel="canonical" href="{URL}{path}">' in text
        (card,) = re.findall(r'og:image" content="([^"]+)"', text)
        assert (published / card.removeprefix(URL)).is_file()
        expected = path.split("/")[1] if path.startswith("m/") else None
        assert card == f"{URL}{f'm/{expected}/' if expected else ''}card.png"


def test_a_site_without_address_and_authors_is_without_what_needs_them(
    site: Path, tmp_path: Path, tiny_folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = {place.name for place in site.rglob("*")}
    assert not names & {"sitemap.xml", "findings.xml", "card.png", "CITATION.cff"}
    assert "og:" not in (site / "index.html").read_text(encoding="utf-8")
    folder = shutil.copytree(tiny_folders[0], tmp_path / "run")
    recipe = folder / "run.toml"
    recipe.write_text('name = "pico-chat"\n[model]\ntuned = "x"\nbase = "y"\n')
    command = ["render", str(folder), "--out", str(tmp_path / "site")]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "site.url" in said
    assert "site.authors" in said
    assert cli.main([*command, "--url", URL]) == 0
    assert "site.url" not in capsys.readouterr().out
    assert (tmp_path / "site" / "sitemap.xml").is_file()


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org/", "example.org", "https://", "https://user:secret@example.org/",
     "https://example.org/?q=1", "https://example.org/#a", 'https://example.org/"onload=',
     "https://example.org/<x>", "javascript:alert(1)", "https://example.org:0/", "https://[x/"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    table = {"name": "x", "model": {"tuned": "t", "base": "b"}, "site": {"url": url}}
    with pytest.raises(ConfigError, match=r"site\.url"):
        parse_settings(table, where="x.toml")


def test_an_address_ends_in_a_slash() -> None:
    assert SiteSettings(url="https://example.org/atlas").url == URL
    assert SiteSettings(url="").url == ""
    assert Settings.model_fields["site"].default.url == ""


# The page for no page


def test_the_page_for_no_page_leads_home_from_any_depth(published: Path) -> None:
    text = (published / "404.html").read_text(encoding="utf-8")
    addresses = re.findall(r'(?:href|src|data-search)="([^"]+)"', text)
    assert len(addresses) > 8
    own = [address for address in addresses if not address.startswith("#")]
    assert all(address.startswith(URL) for address in own)
    for address in own:
        assert (published / address.removeprefix(URL)).is_file(), address


def test_without_an_address_the_page_for_no_page_needs_no_other_file(site: Path) -> None:
    text = (site / "404.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:href|src)=", text)
    assert "Content-Security-Policy" in text


# Feed


ENTRIES = [
    Entry("a", "One & <two>", "Said \x00\u202e]]>", "m/x/l00.html#max", date(2026, 3, 1)),
    Entry("b", "Later", "", "m/x/index.html", date(2026, 11, 21)),
    Entry("c", "Undated \ud800", "text", "index.html"),
]  # fmt: skip


def test_a_feed_holds_its_entries_in_order() -> None:
    channel = ElementTree.fromstring(feed.feed(ENTRIES, "An <atlas>", URL)).find("channel")
    assert channel is not None
    assert channel.findtext("title") == "An <atlas>"
    assert channel.findtext("lastBuildDate") == "Sat, 21 Nov 2026 00:00:00 GMT"
    items = channel.findall("item")
    assert [item.findtext("guid") for item in items] == ["a", "b", "c"]
    assert items[0].findtext("title") == "One & <two>"
    assert items[0].findtext("description") == "Said ⟦U+0000⟧⟦U+202E⟧]]>"
    assert items[0].findtext("link") == f"{URL}m/x/l00.html#max"
    assert items[0].findtext("pubDate") == "Sun, 01 Mar 2026 00:00:00 GMT"
    assert items[2].find("pubDate") is None
    assert feed.feed(ENTRIES, "An <atlas>", URL) == feed.feed(ENTRIES, "An <atlas>", URL)


def test_a_feed_without_entries_is_a_feed() -> None:
    channel = ElementTree.fromstring(feed.feed([], "t", URL)).find("channel")
    assert channel is not None
    assert channel.find("item") is None
    assert channel.find("lastBuildDate") is None


@given(st.text(), st.text())
def test_any_text_can_stand_in_a_feed(title: str, description: str) -> None:
    found = ElementTree.fromstring(
        feed.feed([Entry("x", title, description, "a.html")], title, URL)
    )
    item = found.find("channel/item")
    assert item is not None
    shown = plain(title).replace("\r", "\n")
    assert (item.findtext("title") or "") == shown
    assert not HIDDEN.search(item.findtext("description") or "")


@pytest.mark.parametrize(
    "link", ["https://evil.example/", "../x.html", "a/../../x", "/x", "a b", ""]
)
def test_a_feed_links_pages_of_the_site_only(link: str) -> None:
    with pytest.raises(SiteError, match="not a page"):
        feed.feed([Entry("x", "t", "d", link)], "t", URL)


def test_two_entries_with_one_id_are_refused() -> None:
    with pytest.raises(SiteError, match="have this id"):
        feed.feed([ENTRIES[0], ENTRIES[0]], "t", URL)


# Cards


def test_cards_are_pictures_of_the_size_that_pages_say(run: RunView, published: Path) -> None:
    for content in (model_card(run), site_card([run], "t"), (published / "card.png").read_bytes()):
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.size) == ("PNG", SIZE)
            assert len(image.convert("RGB").getcolors(SIZE[0] * SIZE[1]) or ()) > 8
    assert model_card(run) == model_card(run)


def test_the_map_has_a_cell_for_every_direction_of_the_weights(run: RunView) -> None:
    grid = map_of(run, WRITERS)
    assert len(grid) == run.n_layers
    assert sum(cell is not None for row in grid for cell in row) == len(run.own)
    strongest = max(run.own, key=lambda item: item.row.sigma or 0)
    assert 7 in grid[strongest.row.hookpoint.layer]


@pytest.mark.parametrize(
    ("title", "shown"),
    [("Prüfung", "Prufung"), ("Русский", "run-1"), ("東", "run-1"), ("", "run-1"),
     ("a\u202eb", "a[U+202E]b")],
)  # fmt: skip
def test_a_title_is_drawn_with_letters_that_the_font_has(title: str, shown: str) -> None:
    assert drawable(title, "run-1") == shown


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=2000))
def test_a_card_can_be_drawn_of_any_title(title: str) -> None:
    assert site_card([], title).startswith(b"\x89PNG")


# Citations


def test_the_citation_file_has_what_the_format_wants(run: RunView, published: Path) -> None:
    found = yaml.safe_load((published / "CITATION.cff").read_bytes())
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    assert found["cff-version"] == "1.2.0"
    assert found["type"] in ("software", "dataset")
    assert found["url"] == URL
    assert found["authors"] == [{"name": "A. Reader"}, {"name": "An Institute"}]
    for reference in found["references"]:
        assert {"authors", "title", "type"} <= set(reference)
        assert reference["authors"]
    titles = [reference["title"] for reference in found["references"]]
    assert titles == ["pico-chat", "pico/chat-base", "pico-lora"]
    base = found["references"][1]
    assert (base["authors"], base["commit"]) == ([{"name": "pico"}], "f" * 40)
    hostile = citation_cff([run], "a: [b]\n- c\u202e\ud800", ["x\n  - y: &z", "*a"], "")
    again: dict[str, Any] = yaml.safe_load(hostile)
    assert again["title"] == "a: [b]\n- c⟦U+202E⟧⟦U+D800⟧"
    assert again["authors"] == [{"name": "x\n  - y: &z"}, {"name": "*a"}]
    assert hostile.isascii()
