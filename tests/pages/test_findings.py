"""Findings on the pages: everything cited is looked up, shown and linked, and nothing runs."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from playwright.sync_api import expect

from builder import cli
from builder.config import SiteSettings, load_settings
from builder.errors import SiteError
from builder.pages import build_site, links
from builder.pages.feed import FEED
from builder.pages.finding_view import finding_pages
from builder.pages.findings import Findings, read_findings
from builder.pages.packed import unpacked
from builder.pages.render import Renderer
from builder.pages.spans import Scale, highlight, near_peak
from builder.pages.views import DirectionView, RunView, read_run
from builder.records import Example
from builder.store import RunStore
from tests.findings.writing import write_finding
from tests.pages.conftest import SMALL, Opened
from tests.pages.texts import HIDDEN, MARKUP_ATTACKS, hostile_texts


@dataclass(frozen=True)
class Small:
    """The two smallest runs, opened, and what tests cite of the first."""

    folders: list[Path]
    opened: list[tuple[RunView, RunStore]]

    @property
    def run(self) -> RunView:
        return self.opened[0][0]

    @property
    def item(self) -> DirectionView:
        return self.run.own[0]

    @property
    def cited(self) -> str:
        return f"{self.run.name}/{self.item.row.id}"

    def example(self, pole: str = "max") -> Example:
        found = self.opened[0][1].examples(self.item.row.id, role="any")
        return next(item for item in found if item.pole == pole)


@pytest.fixture(scope="module")
def small(tiny_folders: list[Path]) -> Iterator[Small]:
    """Small runs with their databases open."""
    stores = [RunStore(folder / "run.duckdb") for folder in tiny_folders]
    opened = [(read_run(f, s), s) for f, s in zip(tiny_folders, stores, strict=True)]
    yield Small(tiny_folders, opened)
    for store in stores:
        store.close()


def with_findings(folder: Path) -> SiteSettings:
    return SMALL.model_copy(update={"findings": str(folder)})


@pytest.fixture(scope="module")
def audited(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with findings of several kinds."""
    folder = tmp_path_factory.mktemp("audit") / "findings"
    number = small.example().window.doc_id
    other = f"pico-lora/{small.opened[1][0].own[1].row.id}"
    write_finding(
        folder, "tide.md",
        f"The pole [[{small.cited}#max]] shows it, above all [[{small.cited}#max/{number}]] and\n"
        f"[[{small.cited}#min/{small.example('min').window.doc_id}|the other end]]; "
        f"see [the next](other.md) and [[{other}|that]].\n\n# Why\n\n### Deep\n\n## Less\n\n"
        "| a | b |\n|---|--:|\n| 1 | 2 |\n\nA [link](https://example.org/?a=1&b=2 \"t\"), "
        f"<mailto:a@example.org>, [map](../m/pico-chat/index.html), "
        "[tokens](../tokens.html), [all](../downloads.html), "
        f"[pole](../{small.item.page}#min).\n",
        directions=f"[{{id: {small.cited}, hash: {small.item.row.content_hash}}}]",
        tags="[backdoor, 'two words']",
    )  # fmt: skip
    write_finding(folder, "other.md", severity="critical", date="2026-11-20",
                  claim="Worse", directions=f"[{other}]")  # fmt: skip
    write_finding(folder, "no.md", severity="critical", status="rejected", date="2026-11-22",
                  claim="Not so", directions=f"[{small.cited}#max]")  # fmt: skip
    out = tmp_path_factory.mktemp("sites") / "audited"
    build_site(small.folders, out, with_findings(folder))
    return out


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_finding_shows_its_claim_cards_and_pinned_examples(small: Small, audited: Path) -> None:
    page = text_of(audited / "findings" / "tide.html")
    assert "<h1><bdi>A saying sets off a planted reply</bdi></h1>" in page
    assert '<time datetime="2026-11-21">2026-11-21</time>' in page
    assert page.count('<article class="card">') == 2
    assert f'href="../{small.item.page}"' in page
    assert "Weights as cited" in page
    label = small.item.poles["max"]
    assert label.said.split()[0] in page
    example = small.example()
    assert page.count('<article class="example"') == 2
    first = page[page.index('id="example-1"') : page.index('id="example-2"')]
    anchor = f"max-{example.role}-{example.window.doc_id}"
    assert f'href="../{small.item.page}#{anchor}"' in first
    # The same tokens in the same colours as on the direction's own page.
    header, *_ = unpacked(
        (audited / links.direction_script(small.run.name, small.item.name)).read_bytes()
    )
    shown = near_peak(example, SMALL.context)
    assert str(highlight(shown, Scale(*header["scale"]))) in first
    assert f"#{example.window.doc_id}" in first
    assert '<a class="cite" href="#example-1">example 1</a>' in page
    assert '<a class="cite" href="#example-2">the other end</a>' in page
    assert '<a href="other.html">the next</a>' in page


def test_addresses_that_leave_the_site_do_not_say_where_from(audited: Path) -> None:
    page = text_of(audited / "findings" / "tide.html")
    outside = re.findall(r'<a href="(?:https?|mailto):[^>]*>', page)
    assert outside == [
        '<a href="https://example.org/?a=1&amp;b=2" rel="noreferrer nofollow">',
        '<a href="mailto:a@example.org" rel="noreferrer nofollow">',
    ]


def test_lists_have_the_worst_first_and_pages_list_their_own(small: Small, audited: Path) -> None:
    page = text_of(audited / "findings" / "index.html")
    by_severity = page[page.index("audit of-severity") :]
    assert re.findall(r'href="\.\./findings/([a-z]+)\.html"', by_severity) == [
        "no",
        "other",
        "tide",
    ]
    by_date = page[page.index("audit of-date") : page.index("audit of-severity")]
    assert re.findall(r'href="\.\./findings/([a-z]+)\.html"', by_date) == ["no", "tide", "other"]
    home = text_of(audited / "index.html")
    assert home.index('id="findings"') < home.index('id="models"')
    assert re.findall(r'href="findings/([a-z]+)\.html"', home) == [
        "index",
        "other",
        "tide",
        "index",
    ]
    assert "1 critical" in home
    assert "2 critical" not in home  # one is rejected
    model = text_of(audited / "m" / "pico-chat" / "index.html")
    assert re.findall(r'href="\.\./\.\./findings/([a-z]+)\.html"', model)[1:-1] == ["tide"]


def test_findings_of_a_direction_are_those_that_cite_it(small: Small, tmp_path: Path) -> None:
    write_finding(tmp_path, "a.md", directions=f"[{small.cited}]")
    write_finding(tmp_path, "b.md", f"[[{small.cited}]]", directions="[]", severity="critical")
    write_finding(tmp_path, "c.md", directions=f"[pico-lora/{small.item.row.id}]")
    findings, _ = read_findings(tmp_path, small.opened)
    names = [item.name for item in findings.of(small.run.name, small.item.row.id)]
    assert names == ["b", "a"]
    assert list(findings.of(small.run.name, small.run.own[1].row.id)) == []
    assert findings.counts() == (("critical", 1), ("high", 2))
    assert findings.counts("pico-lora") == (("high", 1),)


def test_a_site_without_findings_has_no_page_and_no_link_for_them(
    small: Small, tmp_path: Path
) -> None:
    build_site(small.folders[:1], tmp_path / "site", SMALL)
    assert not (tmp_path / "site" / "findings").exists()
    for page in (tmp_path / "site").rglob("*.html"):
        assert "findings/" not in text_of(page).replace("weightatlas findings", "")


def test_findings_are_told_in_a_feed_where_the_site_has_an_address(
    small: Small, tmp_path: Path
) -> None:
    for name, day in (("old", "2026-11-19"), ("new", "2026-11-21")):
        write_finding(
            tmp_path / "findings", f"{name}.md",
            claim=f"A {name} claim", date=day, directions=f"[{small.cited}]",
        )  # fmt: skip
    settings = with_findings(tmp_path / "findings")
    site = tmp_path / "site"
    build_site(small.folders[:1], site, settings)
    assert not (site / FEED).exists()
    url = "https://example.org/atlas/"
    build_site(small.folders[:1], site, settings.model_copy(update={"url": url}))
    items = ElementTree.fromstring((site / FEED).read_bytes()).findall("channel/item")
    assert [item.findtext("title") for item in items] == ["A new claim", "A old claim"]
    assert [item.findtext("link") for item in items] == [
        f"{url}findings/{name}.html" for name in ("new", "old")
    ]
    for page in (site / "index.html", site / "findings" / "old.html"):
        assert 'type="application/rss+xml" title="Findings" href="' in text_of(page)
        assert f'{"../" * (page.parent != site)}{FEED}"' in text_of(page)


def test_every_broken_citation_of_every_file_is_told_at_once(small: Small, tmp_path: Path) -> None:
    folder, out = tmp_path / "findings", tmp_path / "site"
    build_site(small.folders[:1], out, SMALL)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    number = small.example().window.doc_id
    close = small.item.row.id[:-1] + "9"
    write_finding(
        folder, "one.md",
        f"[[pico-none/L00.o_proj.u00]]\n\n[[{small.cited}#max/987654]] [gone](gone.md)\n"
        f"[far](../m/pico-chat/gone.html) [place](../{small.item.page}#scores)\n",
        directions=f"\n  - pico-chat/{close}\n  - {small.cited}@00000000",
    )  # fmt: skip
    write_finding(folder, "two.md", severity="awful", directions=f"[{small.cited}]")
    write_finding(folder, "right.md", directions=f"[{small.cited}#max]",
                  examples=f"['{small.cited}#max/{number}']")  # fmt: skip
    with pytest.raises(SiteError) as raised:
        build_site(small.folders[:1], out, with_findings(folder))
    told = str(raised.value).splitlines()
    assert told[0] == "findings: 8 faults; correct the files:"
    for line, said in zip(
        told[1:],
        [
            f"one.md:8: pico-chat/{close}: the run has no such direction; did you mean L0",
            f"one.md:9: {small.cited}: its weights are not those that were cited",
            "one.md:11: pico-none/L00.o_proj.u00: the site has no run 'pico-none'; it has pico-cha",
            f"one.md:13: {small.cited}#max/987654: document 987654 is not among the examples at t",
            "one.md:13: link to 'gone.md': the site has no such page",
            "one.md:14: link to '../m/pico-chat/gone.html': the site has no such page",
            f"one.md:14: link to '../{small.item.page}#scores': of places in a page only the pole",
            "two.md:3: severity: unknown 'awful'",
        ],
        strict=True,
    ):
        assert said in line, told
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_hash_is_checked_wherever_it_is_cited(small: Small, tmp_path: Path) -> None:
    right = small.item.row.content_hash
    write_finding(tmp_path, "a.md", f"[[{small.cited}@{right[:8]}#max]]",
                  directions=f"[{small.cited}, {small.cited}@{right}]")  # fmt: skip
    read_findings(tmp_path, small.opened)
    write_finding(tmp_path, "b.md", f"x\n[[{small.cited}@{right[:-1]}0f]]",
                  directions=f"[{small.cited}@{right}]")  # fmt: skip
    with pytest.raises(SiteError, match=r"b\.md:10: .*not those that were cited"):
        read_findings(tmp_path, small.opened)


#: What a page of findings may be made of.
TAGS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "link",
        "script",
        "body",
        "a",
        "header",
        "img",
        "span",
        "nav",
        "form",
        "input",
        "kbd",
        "button",
        "main",
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "bdi",
        "section",
        "div",
        "article",
        "dl",
        "dt",
        "dd",
        "small",
        "code",
        "footer",
        "b",
        "i",
        "em",
        "strong",
        "ul",
        "ol",
        "li",
        "pre",
        "br",
        "hr",
        "blockquote",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "time",
        "label",
        "details",
        "summary",
    ]
)


class _Tags(HTMLParser):
    """The tags of a page, its headings, and everything that could run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.levels: list[int] = []
        self.ids: list[str] = []
        self.bad: list[object] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.bad.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc"):
                self.bad.append((tag, name))
            if (
                name == "href"
                and tag == "a"
                and not re.match(r"(https?://|mailto:|[a-z0-9._/-]*(\?|#|$))", value or "")
            ):
                self.bad.append((tag, value))
            if name == "id":
                self.ids.append(value or "")
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag not in ("meta", "link", "img", "input", "br", "hr"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.opened or self.opened.pop() != tag:
            self.bad.append(("closes", tag))


PIECES = [
    *MARKUP_ATTACKS, *hostile_texts(), *HIDDEN, "&#x202e;", "&lt;script&gt;", "\\", "`", "```\n",
    "***", "# a\n", "###### b\n", "\n\n", "> ", "- ", "1. ", "999999999. ", "    ", "<b>", "~~~",
    "<!--", "]]>", "<?x", "|a|b|\n|-|-:|\n|c|d|\n", "[a](https://example.org)", "</main>", "&amp;",
    '[a](https://example.org "t\'<b>")', '[a](<https://example.org/" onclick="x>)', "{{ 7*7 }}",
    "[x](https://a.b/%22%3E%3Cscript%3E)", "\\[[a]]", "{% raw %}", "\t", "a\\\nb", "  \n",
    "<https://a.b>",
]  # fmt: skip


def _rendered(small: Small, folder: Path) -> str:
    findings, cited = read_findings(folder, small.opened)
    stores = {run.name: store for run, store in small.opened}
    pages = dict(
        finding_pages(
            Renderer(SiteSettings(title="t"), findings=findings), findings, cited, stores, SMALL
        )
    )
    return pages["findings/a.html"].decode("utf-8")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    claim=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=20)), max_size=4),
    body=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=20)), max_size=12),
)
def test_whatever_a_finding_says_its_page_is_whole_and_holds_no_more_than_text(
    small: Small, tmp_path: Path, claim: list[str], body: list[str]
) -> None:
    said = "".join(claim).encode("utf-8", "replace").decode("utf-8")[:250]
    quoted = '"x' + "".join(f"\\U{ord(letter):08x}" for letter in said) + '"'
    text = "".join(body).encode("utf-8", "replace").decode("utf-8")
    write_finding(tmp_path, "a.md", f"{text}\n", claim=quoted, directions=f"[{small.cited}]",
                  reviewer=quoted, tags=f"[{quoted}]" if len(said) < 40 else "[a]")  # fmt: skip
    try:
        page = _rendered(small, tmp_path)
    except SiteError as error:
        # Only for what is refused by its form, never for what it says.
        faults = str(error).splitlines()[1:]
        assert all(re.search(r"link to|no citation|images are", fault) for fault in faults), faults
        event("refused")
        return
    event("shown")
    found = _Tags(page)
    assert found.bad == []
    assert found.opened == []
    assert len(found.ids) == len(set(found.ids))
    assert found.levels[0] == 1
    assert found.levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(found.levels)), found.levels
    for character in HIDDEN:
        if character != "\u200d":
            assert character not in page


def test_hidden_characters_of_a_body_are_named(small: Small, tmp_path: Path) -> None:
    write_finding(tmp_path, "a.md", "one\u202etwo `\u200b` &#x2066;\n\n    \U000e0041\n",
                  directions=f"[{small.cited}]", claim='"a\\u202eb"')  # fmt: skip
    page = _rendered(small, tmp_path)
    for name in ("U+202E", "U+200B", "U+2066", "U+E0041"):
        assert name in page
    assert "a\u27e6U+202E\u27e7b" in unescape(page[: page.index("</title>")])


def test_a_folder_beside_the_recipe_is_found_and_one_named_is_resolved_from_there(
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "my.toml"
    recipe.write_text('name = "my"\n[model]\ntuned = "a"\nbase = "b"\n')
    assert load_settings(recipe).site.findings is None
    (tmp_path / "findings").mkdir()
    (tmp_path / "audit").mkdir()
    assert load_settings(recipe).site.findings == str(tmp_path / "findings")
    recipe.write_text(recipe.read_text() + '[site]\nfindings = "audit"\n')
    assert load_settings(recipe).site.findings == str(tmp_path / "audit")
    assert load_settings(recipe, ['site.findings=""']).site.findings == ""


def test_render_takes_a_folder_of_findings(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "runs" / "pico-chat"
    shutil.copytree(small.folders[0], run)
    (run / "run.toml").write_text('name = "pico-chat"\n[model]\ntuned = "a"\nbase = "b"\n')
    monkeypatch.chdir(tmp_path)
    write_finding(tmp_path / "audit", "a.md", directions=f"[{small.cited}]")
    (tmp_path / "audit" / "sheet.csv").write_text("x")
    assert cli.main(["render", str(run), "--out", "one"]) == 0
    assert not (tmp_path / "one" / "findings").exists()
    assert cli.main(["render", str(run), "--out", "one", "--findings", "audit"]) == 0
    assert (tmp_path / "one" / "findings" / "a.html").is_file()
    assert "sheet.csv: not read" in capsys.readouterr().err
    # Without the flag the usual folder counts, and a folder that is named must be there.
    (tmp_path / "audit").rename(tmp_path / "findings")
    assert cli.main(["render", str(run), "--out", "two"]) == 0
    assert (tmp_path / "two" / "findings" / "a.html").is_file()
    assert cli.main(["render", str(run), "--out", "two", "--findings", ""]) == 0
    assert not (tmp_path / "two" / "findings").exists()
    assert cli.main(["render", str(run), "--findings", "gone"]) == 2
    assert "gone: no folder of findings" in capsys.readouterr().err


def test_no_findings_are_none() -> None:
    assert Findings().of("any") == ()
    assert Findings().top() == ()
    assert Findings().counts() == ()


@pytest.mark.browser
@pytest.mark.parametrize("page", ["findings/index.html", "findings/tide.html", "index.html"])
def test_pages_of_findings_load_without_faults_and_fit_a_phone(
    opened: Opened, audited: Path, page: str
) -> None:
    opened.page.goto(f"{audited.as_uri()}/{page}")
    opened.page.wait_for_load_state("networkidle")
    opened.page.set_viewport_size({"width": 360, "height": 700})
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    assert opened.faults == []


@pytest.mark.browser
def test_the_list_changes_its_order_without_script(opened: Opened, audited: Path) -> None:
    page = opened.page
    page.goto(f"{audited.as_uri()}/findings/index.html")
    shown = page.locator(".audit li:visible a")
    assert shown.all_inner_texts() == ["Not so", "Worse", "A saying sets off a planted reply"]
    page.get_by_text("date", exact=True).click()
    assert shown.all_inner_texts() == ["Not so", "A saying sets off a planted reply", "Worse"]


@pytest.mark.browser
def test_a_citation_leads_to_the_example_and_on_to_the_direction(
    opened: Opened, small: Small, audited: Path
) -> None:
    page = opened.page
    page.goto(f"{audited.as_uri()}/findings/tide.html")
    page.get_by_role("link", name="example 1", exact=True).click()
    expect(page.locator("#example-1")).to_be_in_viewport()
    page.locator("#example-1 a.id").click()
    expect(page.locator("h1")).to_have_text(small.item.row.id)
    assert opened.faults == []


@pytest.mark.browser
def test_nothing_in_a_finding_runs(opened: Opened, small: Small, tmp_path: Path) -> None:
    folder, out = tmp_path / "findings", tmp_path / "site"
    for at, attack in enumerate(MARKUP_ATTACKS):
        quoted = '"' + "".join(f"\\U{ord(letter):08x}" for letter in attack[:250]) + '"'
        write_finding(folder, f"a{at}.md", f"{attack}\n\n- {attack}\n\n> {attack}\n", claim=quoted,
                      reviewer=quoted, directions=f"[{small.cited}]")  # fmt: skip
    build_site(small.folders[:1], out, with_findings(folder))
    for path in (out / "findings").iterdir():
        opened.page.goto(path.as_uri())
        opened.page.wait_for_load_state("networkidle")
        assert opened.page.evaluate("window.owned") is None
    opened.page.goto(f"{out.as_uri()}/index.html")
    assert opened.page.evaluate("window.owned") is None
    assert opened.faults == []
    assert all(address.startswith("file:") for address in opened.requests)
