"""What a direction's script does with its examples: draws them, switches, unfolds, links."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from builder.pages.example_view import IN_PAGE
from builder.pages.formats import signed, whole
from builder.pages.views import RunView, read_run
from builder.records import POLES
from builder.store import RunStore
from tests.pages.conftest import SMALL, Opened, address, filled, page_of
from tests.pages.drawn import STEPS, Drawn, examples_of, random_of, scales_of
from tests.pages.packing import Packed, random_texts, script_of, seen

#: A page of the run that was scanned alone, and one of that which was scanned with its base.
ALONE, BASED = "m/pico-chat/l02.o_proj.u00.html", "m/pico-lora/l01.o_proj.u00.html"


@pytest.fixture(scope="module")
def based(run_folders: list[Path]) -> RunView:
    """The run that was scanned with its base."""
    with RunStore(run_folders[1] / "run.duckdb") as store:
        return read_run(run_folders[1], store)


@pytest.fixture(scope="module")
def script(site: Path, based: RunView) -> Packed:
    """The file of BASED."""
    return script_of(site, next(item for item in based.directions if item.page == BASED))


@pytest.fixture
def plain(browser: Browser) -> Iterator[Page]:
    """A page on which no script runs."""
    context = browser.new_context(java_script_enabled=False)
    yield context.new_page()
    context.close()


def go(opened: Opened, site: Path, name: str) -> Page:
    opened.page.goto(address(site, name))
    filled(opened.page)
    return opened.page


def drawn_texts(page: Page) -> dict[str, str]:
    """The text of every example by its place, as far as it is shown."""
    found: dict[str, str] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.example')]
           .map((it) => [it.id, it.querySelector('.t').textContent]))"""
    )
    return found


def steps_of(page: Page, places: list[str]) -> list[list[tuple[str, int]]]:
    """Every character of the texts at these places with its step."""
    found = page.evaluate(
        f"(places) => ({STEPS})(places.map((place) => document.querySelector(place)))", places
    )
    return [[(c, step) for text, step in parts for c in text] for parts in found]


def assert_coloured(page: Page, texts: dict[str, Drawn], script: Packed, show: str) -> int:
    """That the texts at these places have the colours of ``show``; how many pieces have one."""
    scale = scales_of(script)[show]
    coloured = 0
    for text, found in zip(texts.values(), steps_of(page, list(texts)), strict=True):
        wanted: list[tuple[str, int]] = []
        steps = iter(text.steps(scale, show))
        for piece, _, n in text.shown():
            step = next(steps) if n else 0
            wanted += [(character, step) for character in seen(piece)]
            coloured += step != 0
        assert "".join(c for c, _ in found) == "".join(c for c, _ in wanted)
        # Single precision, so a value at an edge may fall to either side of it.
        off = [abs(a - b) for (_, a), (_, b) in zip(found, wanted, strict=True)]
        assert max(off, default=0) <= 1
        assert sum(off) <= 0.02 * len(off) + 2
    return coloured


def at(examples: list[Drawn]) -> dict[str, Drawn]:
    """Examples by where their texts are."""
    return {f"#{example.anchor} .t": example for example in examples}


def role_marks(page: Page, anchor: str) -> list[str]:
    """The roles of an example's stretches, where they differ."""
    found: list[str] = page.locator(f"#{anchor} .t [data-r]").evaluate_all(
        "(all) => all.map((it) => it.dataset.r)"
    )
    return found


def test_all_examples_are_there_once_the_script_has_run(
    opened: Opened, site: Path, based: RunView
) -> None:
    for item in based.directions[::4]:
        page = go(opened, site, item.page)
        wanted = examples_of(script_of(site, item))
        assert drawn_texts(page) == {example.anchor: example.text() for example in wanted}
        order = page.locator(".example").evaluate_all("(all) => all.map((it) => it.id)")
        assert order == [example.anchor for example in wanted]
        assert page.locator(".example i.k").count() == len(wanted)
        for example in wanted[::5]:
            roles = [example.roles[first] for _, first, n in example.shown() if n]
            stretches = [role for role, _ in itertools.groupby(roles)]
            mixed = len(set(example.roles)) > 1
            assert role_marks(page, example.anchor) == (stretches if mixed else [])
    assert opened.faults == []


@pytest.mark.parametrize("name", [ALONE, BASED, "m/pico-chat/l01.down_proj.u01.html"])
def test_the_script_draws_the_pages_own_examples_as_they_stood(
    opened: Opened, plain: Page, site: Path, name: str
) -> None:
    plain.goto(address(site, name))
    anchors = plain.locator(".example").evaluate_all("(all) => all.map((it) => it.id)")
    assert len(anchors) == 2 * IN_PAGE
    page = go(opened, site, name)
    places = [f"#{anchor} .t" for anchor in anchors]
    for before, after in zip(steps_of(plain, places), steps_of(page, places), strict=True):
        assert [c for c, _ in before] == [c for c, _ in after]
        # Values come in 255 steps, and colours in seven: at an edge they may differ by one.
        off = [abs(a - b) for (_, a), (_, b) in zip(before, after, strict=True)]
        assert max(off) <= 1
        assert sum(map(bool, off)) <= 0.2 * len(off)
    for anchor in anchors:
        heads = [it.locator(f"#{anchor} header").inner_text() for it in (plain, page)]
        assert heads[0] == heads[1]
        marks = [it.locator(f"#{anchor} .t").get_attribute("class") for it in (plain, page)]
        assert marks[0] == marks[1], "the sign that the document begins earlier"
        named, more = role_marks(plain, anchor), role_marks(page, anchor)
        # The script knows more of the window than is shown, and may name its only role.
        assert named == more or (named == [] and len(more) == 1)


def test_without_script_the_first_examples_stand_and_the_rest_is_said_to_need_it(
    plain: Page, site: Path
) -> None:
    plain.goto(address(site, ALONE))
    shown = plain.locator(".example")
    assert shown.count() == 2 * IN_PAGE
    assert all(it.is_visible() for it in shown.all())
    for pole in POLES:
        assert plain.locator(f"#{pole} .example").count() == IN_PAGE
    note = plain.locator(".poles noscript .note")
    assert f"{2 * (SMALL.examples - IN_PAGE)} further examples" in note.inner_text()
    assert "need JavaScript" in note.inner_text()
    # Nothing stands there that would do nothing.
    for name in (".switch", "[data-judged]", "[data-between]", "[data-copy]", ".js-only"):
        assert plain.locator(name).count()
        assert not any(it.is_visible() for it in plain.locator(name).all()), name
    assert plain.locator(".tip, .more").count() == 0


def test_role_lists_switch_and_stay_in_the_address(opened: Opened, site: Path) -> None:
    page = go(opened, site, ALONE)
    shown = page.locator(".example:visible")
    labels = page.locator(".switch label[for^=role-]").all_inner_texts()
    said = dict(label.split() for label in labels)
    assert next(iter(said)) == "any"
    assert shown.count() == int(said["any"]) == page.locator(".example.any").count()
    for role in [*list(said)[1:], "any"]:
        page.locator(f"label[for=role-{role}]").click()
        expect(shown).to_have_count(int(said[role]))
        assert all(role in (it.get_attribute("class") or "").split() for it in shown.all())
        assert page.url == address(site, ALONE) + ("" if role == "any" else f"?role={role}")
    page.goto("about:blank")
    page = go(opened, site, f"{ALONE}?role=template#min")
    expect(shown).to_have_count(int(said["template"]))
    assert page.locator("#role-template").is_checked()
    assert opened.faults == []


def test_activations_of_tuned_base_and_difference_have_their_own_colours(
    opened: Opened, site: Path, script: Packed
) -> None:
    page = go(opened, site, BASED)
    texts = at(examples_of(script))
    legend = page.locator(".ramp b")
    ends, colours = {}, {}
    for show in ("tuned", "base", "difference", "tuned"):
        page.locator(f"label[for=show-{show}]").click()
        assert assert_coloured(page, texts, script, show) > 0
        scale = scales_of(script)[show]
        ends[show] = [legend.first.inner_text(), legend.last.inner_text()]
        assert ends[show] == [signed(scale.value_at(-7), 2), signed(scale.value_at(7), 2)]
        colours[show] = steps_of(page, list(texts))
        assert page.locator("[data-meaning]").is_visible() == (show == "tuned")
        assert page.locator("[data-other]").is_visible() == (show != "tuned")
        assert page.url == address(site, BASED) + ("" if show == "tuned" else f"?show={show}")
    assert colours["tuned"] != colours["base"] != colours["difference"]
    assert ends["tuned"] == ends["base"] != ends["difference"]
    assert opened.faults == []
    go(opened, site, ALONE)
    assert page.locator(".switch.shows").count() == 0, "nothing to choose without the base"


def test_what_one_looks_at_is_restored_from_the_address(
    opened: Opened, site: Path, script: Packed
) -> None:
    page = go(opened, site, f"{BASED}?show=difference&role=user")
    assert page.locator("#show-difference").is_checked()
    assert page.locator("#role-user").is_checked()
    examples = [e for e in examples_of(script) if e.role == "user" and e.lists & 2]
    visible = page.locator(".example:visible").evaluate_all("(all) => all.map((it) => it.id)")
    assert visible == [example.anchor for example in examples]
    assert_coloured(page, at(examples), script, "difference")
    expect(page.locator("[data-other]")).to_contain_text("Tuned minus base")
    # What else the address says stays, and the first choice needs no words.
    page.locator("label[for=show-tuned]").click()
    assert page.url == address(site, f"{BASED}?role=user")
    assert opened.faults == []


@pytest.mark.parametrize("query", ["show=nothing&role=nobody", "role=%3Cscript%3E", "show=&role="])
def test_an_address_that_asks_for_what_there_is_not_shows_what_is_first(
    opened: Opened, site: Path, script: Packed, query: str
) -> None:
    page = go(opened, site, f"{BASED}?{query}")
    assert page.locator("#show-tuned").is_checked()
    assert page.locator("#role-any").is_checked()
    assert_coloured(page, at(examples_of(script)), script, "tuned")
    assert opened.faults == []


def test_more_context_shows_the_rest_of_the_window_and_less_takes_it_away(
    opened: Opened, site: Path, script: Packed
) -> None:
    page = go(opened, site, BASED)
    checked = 0
    for example in examples_of(script):
        button = page.locator(f"#{example.anchor} .more")
        assert button.count() == example.has_more
        if not example.has_more or not button.is_visible():
            continue
        text = page.locator(f"#{example.anchor} .t")
        expect(button).to_have_text("More context")
        expect(button).to_have_attribute("aria-expanded", "false")
        near = text.locator("i").count()
        button.click()
        expect(button).to_have_attribute("aria-expanded", "true")
        assert text.text_content() == example.text(is_open=True)
        assert text.locator("i").count() == len(example.pieces) > near
        assert text.locator("i.k").count() == 1
        first, last = example.start + 1, example.start + example.tokens
        expect(button).to_have_text(
            f"Less context (tokens {whole(first)} to {whole(last)} of the document)"
        )
        button.click()
        expect(button).to_have_attribute("aria-expanded", "false")
        assert text.text_content() == example.text()
        assert text.locator("i").count() == near
        checked += 1
    assert checked > 5
    assert opened.faults == []


def test_a_permalink_to_any_example_leads_to_it(opened: Opened, site: Path, script: Packed) -> None:
    examples = examples_of(script)
    in_list = [e for e in examples if e.lists & 1 and e.anchor.startswith("min")][-1]
    in_role = [e for e in examples if not e.lists & 1 and e.role != in_list.role][-1]
    for example, role in ((in_list, "any"), (in_role, in_role.role)):
        assert f"id={example.anchor} " not in (site / BASED).read_text("utf-8")
        page = opened.page
        page.goto("about:blank")
        go(opened, site, f"{BASED}#{example.anchor}")
        expect(page.locator(f"#{example.anchor}")).to_be_in_viewport()
        assert page.locator(f"#role-{role}").is_checked()
        assert page.locator(".example.target").evaluate_all("(all) => all.map((e) => e.id)") == [
            example.anchor
        ]
    # From one to the other within the page.
    page.evaluate("(anchor) => { location.hash = anchor; }", in_list.anchor)
    expect(page.locator(f"#{in_list.anchor}.target")).to_be_in_viewport()
    assert page.locator(".example.target").count() == 1
    assert opened.faults == []


def test_random_documents_appear_when_they_are_asked_for(
    opened: Opened, site: Path, based: RunView, script: Packed
) -> None:
    page = go(opened, site, BASED)
    assert not any(request.endswith("texts.js") for request in opened.requests)
    page.locator("[data-between] summary").click()
    articles = page.locator("[data-between] article")
    texts = random_texts(site, based.name)
    wanted = random_of(script, texts)
    expect(articles).to_have_count(len(wanted))
    places = {}
    for n, (row, example) in enumerate(zip(script.header["between"], wanted, strict=True)):
        article = articles.nth(n)
        assert article.locator(".value").inner_text() == signed(row[2])
        assert f"beyond {100 * row[1]:.0f} % of random documents" in article.inner_text()
        assert article.locator("i.k").count() == 1
        document = texts.header["windows"][row[3]][1]
        assert article.locator(".source").inner_text().endswith(f"#{document}")
        of_pole = f"[data-between] .pole.{POLES[row[0]]}"
        k = sum(other[0] == row[0] for other in script.header["between"][:n])
        places[f"{of_pole} article:nth-of-type({k + 1}) .t"] = example
    # Their colours follow the choice as those of the examples do.
    for show in ("tuned", "difference"):
        page.locator(f"label[for=show-{show}]").click()
        assert assert_coloured(page, places, script, show) > 0
    # They are loaded once, and closed and opened again are the same.
    page.locator("[data-between] summary").click()
    page.locator("[data-between] summary").click()
    expect(articles).to_have_count(len(wanted))
    assert sum(request.endswith("texts.js") for request in opened.requests) == 1
    assert opened.faults == []


def test_a_file_of_random_documents_that_is_gone_is_said_to_be(opened: Opened, served: str) -> None:
    page = opened.page
    page.route("**/texts.js", lambda route: route.abort())
    page.goto(served + ALONE)
    filled(page)
    page.locator("[data-between] summary").click()
    expect(page.locator("[data-between]")).to_contain_text("texts.js could not be loaded")
    assert page.locator(".example:visible").count() > 2 * IN_PAGE
    assert [f for f in opened.faults if "texts.js" not in f and "ERR_FAILED" not in f] == []


def test_a_page_whose_file_is_gone_reads_as_without_script(
    opened: Opened, served: str, site: Path, run: RunView
) -> None:
    page = opened.page
    page.route("**/d/*.js", lambda route: route.abort())
    page.goto(served + ALONE)
    page.wait_for_load_state("networkidle")
    assert page.locator(".example:visible").count() == 2 * IN_PAGE
    item = next(item for item in run.directions if item.page == ALONE)
    assert page_of(site, item).count("<article") == 2 * IN_PAGE
