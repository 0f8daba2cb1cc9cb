"""Each of a hundred hostile texts takes no effect and is all there, wherever it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from builder.comparison import compare_runs
from builder.config import SiteSettings
from builder.findings.reading import read_finding
from builder.pages import build_site
from builder.pages.peaks_view import folded
from builder.pages.spans import plain
from tests.findings.writing import finding_text, write_finding
from tests.pages.conftest import Opened, address, ready, unfold
from tests.pages.fixture import make_run
from tests.pages.payloads import PAYLOADS
from tests.pages.reading import PARTS, fault, hidden_in, named

pytestmark = pytest.mark.slow

TEXTS = tuple(PAYLOADS.values())
#: Directions of the hostile run that hold all of them, two each.
DIRECTIONS = [
    f"l{layer:02d}.{writer}.u{rank:02d}"
    for layer in range(4)
    for writer in ("o_proj", "down_proj")
    for rank in range(10)
][: (len(TEXTS) + 1) // 2]
#: The texts of each finding: all are in its body, the first three are its claim, reviewer and tag.
FINDINGS = [TEXTS[at :: len(TEXTS) // 4 + 1] for at in range(len(TEXTS) // 4 + 1)]
#: Characters of those three that are taken.
_MOST = (250, 250, 30)


def on_one_line(text: str) -> str:
    """A text as data files have it: white space that can be seen is one space."""
    return re.sub("[ \n\t\xa0\u1680\u3000]+", " ", text).strip(" ")


def escaped(text: str) -> str:
    """A text as a string of YAML."""
    return '"' + "".join(f"\\U{ord(letter):08x}" for letter in text) + '"'


def body_of(text: str) -> str:
    """A text as a paragraph of Markdown, and as code."""
    fence = "~" * 40
    words = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
    return f"{words}\n\n{fence}\n{text}\n{fence}\n"


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site whose texts, tokens, labels, sources and findings are all hostile."""
    folder = tmp_path_factory.mktemp("placed")
    runs = [
        make_run(folder / "one", name="hostile", title=PAYLOADS["raw text elements"], seed=4,
                 ranks=10, scored=False, payloads=TEXTS),
        make_run(folder / "two", name="other", title=PAYLOADS["double quote"], seed=6, ranks=1,
                 documents=12, scored=False),
    ]  # fmt: skip
    for number, texts in enumerate(FINDINGS):
        claim, reviewer, tag = (
            escaped(text[:most]) for text, most in zip(texts, _MOST, strict=False)
        )
        write_finding(folder / "findings", f"{number:02d}.md", "\n".join(map(body_of, texts)),
                      claim=claim, reviewer=reviewer, tags=f"[{tag}]",
                      directions="[hostile/L00.o_proj.u00#max]")  # fmt: skip
    found = compare_runs(runs)
    site = SiteSettings(
        title=PAYLOADS["end of script"], warning=PAYLOADS["handler after a double quote"],
        examples=2, context=16, findings=str(folder / "findings"),
    )  # fmt: skip
    build_site(runs, folder / "site", site, found.near, found.groups)
    return folder / "site"


@pytest.fixture
def harmless(opened: Opened, placed: Path) -> Iterator[Page]:
    """A page on which none of the texts may take effect, and that nothing may end early."""
    yield opened.page
    whole(opened.page)
    assert opened.faults == []
    assert all(request.startswith(placed.as_uri()) for request in opened.requests)


def whole(page: Page) -> None:
    """Fails unless a page ends where its template does, and holds no element of a text's own."""
    found = page.evaluate(
        """() => ({
            ends: document.body.lastElementChild.matches(
                "footer.bottom, .tip, body:not(:has(footer)) > main"),
            inside: document.querySelectorAll("main").length === 1,
            foreign: [...document.querySelectorAll("iframe, object, embed, base, style, template,"
                + "plaintext, xmp, marquee, video, audio, math, [style], [srcdoc], a[href*=':']")]
                .filter((it) => !it.matches(".tip")).map((it) => it.outerHTML.slice(0, 200)),
            owned: [window.owned, {}.owned].filter((it) => it !== undefined),
        })"""
    )
    assert found == {"ends": True, "inside": True, "foreign": [], "owned": []}, page.url


def visit(page: Page, where: str) -> None:
    """Opens a page, and fails unless it is whole."""
    page.goto(where)
    whole(page)


def parts_of(page: Page, selector: str) -> list[Any]:
    """The parts of all elements that a selector finds."""
    return list(page.locator(selector).evaluate_all(PARTS))


def faults_of(found: dict[str, tuple[Any, str]], **how: bool) -> dict[str, str]:
    """By name of the text what is wrong with it, of those with which anything is."""
    told = {name: fault(parts, text, **how) for name, (parts, text) in found.items()}
    return {name: said for name, said in told.items() if said}


def by_name(parts: list[Any]) -> dict[str, tuple[Any, str]]:
    """The parts of all texts, in their order, with the texts."""
    return {name: (own, text) for (name, text), own in zip(PAYLOADS.items(), parts, strict=True)}


def test_there_are_a_hundred_of_them_and_each_is_another() -> None:
    assert len(PAYLOADS) >= 100
    assert len(set(TEXTS)) == len(TEXTS)


def test_pages_of_directions_show_each_as_text_token_label_and_source(
    harmless: Page, placed: Path
) -> None:
    found: dict[str, list[Any]] = {}
    places = {
        "label": ".pole h2 .label", "text": ".examples > .example:first-child .t",
        "token": ".examples > .example:first-child .t i.k", "keyword": ".keywords bdi",
        "source": ".examples > .example:first-child .source bdi", "lens": ".lens code[title]",
        "explanation": ".pole .why", "title": "title",
    }  # fmt: skip
    for name in DIRECTIONS:
        visit(harmless, address(placed, f"m/hostile/{name}.html"))
        unfold(harmless)
        own = harmless.evaluate(
            f"""(places) => Object.fromEntries(Object.entries(places).map(([name, place]) =>
                [name, ({PARTS})([...document.querySelectorAll(place)])]))""",
            places,
        )
        for place, parts in own.items():
            found.setdefault(place, []).extend(parts)
        for button in harmless.locator(".more:visible").all():
            button.click()
        unseen = harmless.locator(".examples > .example:first-child .cc").evaluate_all(
            "(all) => all.filter((box) => !box.checkVisibility() || !box.offsetWidth).length"
        )
        assert unseen == 0, name
        whole(harmless)
    titles = found.pop("title")
    assert hidden_in("".join(said for parts in titles for said, _ in parts)) == set()
    texts = {name: f"Read this: {text} twice" for name, text in PAYLOADS.items()}
    for place, parts in found.items():
        held = by_name(parts[: len(TEXTS)])
        if place == "text":
            held = {name: (_within(own), texts[name]) for name, (own, _) in held.items()}
        # The page's own file has sources with hidden characters named in brackets.
        assert faults_of(held, in_names=place == "source") == {}, place


def _within(parts: Any) -> Any:
    """The parts of an example without the words of the chat template around it."""
    joined = [[said, is_box] for said, is_box in parts]
    first = next(at for at, (said, _) in enumerate(joined) if said.startswith("Read"))
    last = max(at for at, (said, _) in enumerate(joined) if said == " twice")
    return joined[first : last + 1]


def test_the_list_of_labels_shows_each(harmless: Page, placed: Path) -> None:
    visit(harmless, address(placed, "directions.html"))
    own = parts_of(harmless, "section[aria-labelledby=of-hostile] td .label")
    assert faults_of(by_name(own)) == {}


def test_search_shows_each_label(harmless: Page, placed: Path) -> None:
    visit(harmless, address(placed, "search.html"))
    ready(harmless)
    while harmless.locator("#more").is_visible():
        harmless.locator("#more").click()
    found = harmless.locator("#results li").evaluate_all(
        "(all) => all.map((it) => [it.querySelector('a').getAttribute('href'),"
        " it.querySelector('.said').textContent])"
    )
    labels = {link: [(said, False)] for link, said in found}
    poles = [f"m/hostile/{name}.html#{pole}" for name in DIRECTIONS for pole in ("max", "min")]
    held = {
        name: (labels[pole], on_one_line(text))
        for pole, (name, text) in zip(poles, PAYLOADS.items(), strict=False)
    }
    assert faults_of(held, in_names=True) == {}


def test_whatever_is_searched_for_is_only_looked_for(harmless: Page, placed: Path) -> None:
    visit(harmless, address(placed, "search.html"))
    ready(harmless)
    lost = harmless.evaluate(
        """(texts) => {
            const box = document.getElementById("q"), lost = [];
            for (const text of texts) {
                box.value = text.slice(0, 300);
                box.form.requestSubmit();
                const said = document.getElementById("status").textContent;
                if (!said.includes("pole")) lost.push(text);
            }
            return lost;
        }""",
        list(TEXTS),
    )
    assert lost == []
    for name in ("script", "end of script", "query", "percent signs", "null"):
        visit(harmless, f"{address(placed, 'search.html')}?q={quote(PAYLOADS[name])}")
        ready(harmless)
    assert harmless.locator("#q").input_value() == PAYLOADS["null"]


def test_tokens_are_found_by_what_they_begin_with_and_shown(harmless: Page, placed: Path) -> None:
    visit(harmless, address(placed, "tokens.html"))
    expect(harmless.locator("#status")).to_have_text("")
    harmless.wait_for_load_state("networkidle")
    asked = {name: " ".join(plain(folded(text)).split())[:100] for name, text in PAYLOADS.items()}
    found = harmless.evaluate(
        """(asked) => Object.fromEntries(Object.entries(asked).map(([name, start]) => {
            const box = document.getElementById("q");
            box.value = start;
            box.form.requestSubmit();
            const shown = [...document.querySelectorAll("#found h2 .token")];
            return [name, shown.map((token) => token.textContent)];
        }))""",
        asked,
    )
    lost = {
        name: said
        for name, said in found.items()
        if all(
            fault([(one, False)], on_one_line(folded(PAYLOADS[name])), in_names=True)
            for one in said
        )
    }
    assert lost == {}


def test_triage_shows_each_label_and_its_text(harmless: Page, placed: Path) -> None:
    visit(harmless, address(placed, "triage.html"))
    expect(harmless.locator("#max-examples li")).not_to_have_count(0)
    found = harmless.evaluate(
        f"""async () => {{
            const parts = {PARTS}, found = {{}};
            const at = (id) => document.getElementById(id);
            const frame = () => new Promise((done) => requestAnimationFrame(done));
            const count = Number(at("place").textContent.split(" of ")[1]);
            for (let number = 1; number <= count; number++) {{
                const list = at("min-examples");
                for (let wait = 0; wait < 300 && !list.children.length; wait++) await frame();
                found[at("title").textContent] = ["max", "min"].map((pole) => [
                    at(`${{pole}}-said`).textContent,
                    ...parts([at(`${{pole}}-examples`).querySelector(".t mark"),
                        at(`${{pole}}-examples`).querySelector(".t"),
                        at(`${{pole}}-examples`).querySelector("bdi")]),
                ]);
                at("next").click();
            }}
            return found;
        }}"""
    )
    own = [pole for name in DIRECTIONS for pole in found[name[0].upper() + name[1:]]]
    sides = zip(PAYLOADS.items(), own, strict=False)
    for (name, text), (label, token, around, source) in sides:
        assert fault([(label, False)], on_one_line(text), in_names=True) == "", name
        assert fault(token, text) == "", name
        assert "".join(said for said, is_box in around if not is_box).count("this: ") == 1, name
        assert fault(source, text, in_names=True) == "", name


def test_findings_show_each_in_their_body_and_some_at_their_head(
    harmless: Page, placed: Path
) -> None:
    heads = ("h1 bdi", ".by-whom bdi", ".tag")
    told = {}
    for number, texts in enumerate(FINDINGS):
        visit(harmless, address(placed, f"findings/{number:02d}.html"))
        wanted = [
            *((place, [said]) for place, said in zip(heads, _heads(texts), strict=True)),
            (".told pre code", [f"{_as_markdown(text)}\n" for text in texts]),
            (".told > p", [_as_markdown(" ".join(text.split())) for text in texts]),
        ]
        for place, said in wanted:
            for parts, text in zip(parts_of(harmless, place), said, strict=True):
                told[number, place] = fault(parts, text)
    assert {where: said for where, said in told.items() if said} == {}
    visit(harmless, address(placed, "findings/index.html"))
    claims = parts_of(harmless, ".audit.of-severity a bdi")
    for parts, texts in zip(claims, FINDINGS, strict=True):
        assert fault(parts, _heads(texts)[0]) == ""


def _heads(texts: Sequence[str]) -> tuple[str, str, str]:
    """What is shown of a claim, which is one line, of a reviewer and of a tag."""
    claim, reviewer, tag = (text[:most].strip() for text, most in zip(texts, _MOST, strict=False))
    return " ".join(claim.split()), reviewer, tag


def _as_markdown(text: str) -> str:
    """What CommonMark reads of a text: a null is U+FFFD, and lines end in line feeds."""
    return text.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")


def test_a_finding_with_half_a_pair_is_refused_by_its_line() -> None:
    for said in ('"half \\ud83d of a pair"', '"half \\ude00 of a pair"'):
        found, faults = read_finding(finding_text(claim=said).encode(), Path("a.md"))
        assert found is None
        assert [str(each).split(": ")[:2] for each in faults] == [["a.md:2", "claim"]]


def test_pages_of_all_models_show_texts_of_the_run_and_nothing_else(
    harmless: Page, placed: Path
) -> None:
    known = {" ".join(text.split()) for text in TEXTS}
    for page in ("index.html", "m/hostile/index.html", next((placed / "compare").iterdir())):
        path = page if isinstance(page, str) else f"compare/{page.name}"
        visit(harmless, address(placed, path))
        unfold(harmless)
        labels = parts_of(harmless, "main .label:not(.none, .unlabelled, .failed)")
        own = [parts for parts in labels if all(fault(parts, text) for text in TEXTS)]
        others = {"".join(said for said, _ in parts) for parts in own}
        assert labels or path == "index.html"
        assert not others & known
    sources = parts_of(harmless, "body")
    assert hidden_in("".join(said for parts in sources for said, _ in parts)) == set()


@pytest.mark.parametrize("page", ["methods.html", "downloads.html", "404.html", "tokens.html"])
def test_other_pages_are_whole(harmless: Page, placed: Path, page: str) -> None:
    visit(harmless, address(placed, page))
    harmless.wait_for_load_state("networkidle")
    body = "".join(said for parts in parts_of(harmless, "body") for said, _ in parts)
    assert hidden_in(body) == set()
    assert PAYLOADS["end of script"] in named(body)
