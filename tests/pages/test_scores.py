"""Pages say how far a score can be trusted: its interval, its texts, and who may know them."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser

from builder.pages.formats import ranged
from builder.pages.label_view import pole_view
from builder.pages.labels_view import labels_view
from builder.pages.score_view import Texts, pole_scores
from builder.pages.views import RunView
from builder.records import HAND, Label, Score
from tests.pages.conftest import page_of
from tests.pages.packing import script_of


def test_no_score_to_be_compared_stands_without_its_interval(site: Path, run: RunView) -> None:
    interval = r"\s?\(\d\.\d\d–\d\.\d\d\)"
    checked = 0
    for page in [*site.glob("*.html"), *site.glob("m/pico-chat/*.html")]:
        text = page.read_text(encoding="utf-8")
        # The place among controls says in words where its interval ends; lists of other directions
        # lead to the pages that have it, and their labels are grey where chance reaches as far.
        text = re.sub(r'<svg class="plot among".*?</svg>', "", text)
        text = re.sub(r'<h2 id="nearby">.*?(?=<h2 id="numbers">)', "", text, flags=re.DOTALL)
        for found in re.finditer(r"F1(?:&nbsp;|\s)\d\.\d\d", text):
            assert re.match(interval, text[found.end() :]), (page, text[found.start() :][:80])
            checked += 1
    assert checked > 4 * len(run.own)
    model = (site / run.page).read_text(encoding="utf-8")
    for row in labels_view(run).best:
        assert row.pole.score
        score = row.pole.score.score
        assert f"<span>{ranged(score.f1, score.f1_interval)}</span>" in model
    assert re.search(r"half of the intervals are wider than 0\.\d\d", model)
    item = next(i for i in run.own if any(side.score for side in i.poles.values()))
    cell = re.search(rf"<a href={re.escape(item.name)}\.html[^>]* title=\"([^\"]*)\"", model)
    assert cell
    assert re.search(r", F1 \d\.\d\d" + interval, cell[1])


def test_the_texts_of_a_label_by_hand_are_not_said_to_be_new_to_its_author(
    site: Path, run: RunView
) -> None:
    said = {True: 0, False: 0}
    for item in run.own:
        text = page_of(site, item)
        for pole, side in item.poles.items():
            if f"id={pole}-scores>" not in text or not side.score:
                continue
            block = text[text.index(f"id={pole}-scores>") :][:600]
            by_hand = side.label is not None and side.label.labeler == HAND
            assert ("Scored on texts it was not made from" in block) != by_hand
            assert ("A person may have read these texts" in block) == by_hand
            said[by_hand] += 1
    assert min(said.values()) > 0


def test_the_number_of_texts_stands_beside_each_scorer_and_where_they_differ_is_said() -> None:
    label = Label("d", "max", "model", "about tides")
    scores = [
        Score("d", "max", "model", "detection", "judge", "about tides", 0.9, 0.9,
              n_positive=9, n_negative=198),
        Score("d", "max", "model", "fuzzing", "judge", "about tides", 0.8, 0.8,
              n_positive=9, n_negative=48),
    ]  # fmt: skip
    view = pole_view("max", [label], scores)
    found = pole_scores(view, scores, Texts("max", {"max": [], "min": []}, [], (), 0), ())
    assert found is not None
    assert found.sizes == {207, 57}


def test_the_page_says_how_many_texts_each_scorer_judged(site: Path, run: RunView) -> None:
    said: set[bool] = set()
    for item in run.own:
        text = page_of(site, item)
        for pole, side in item.poles.items():
            views = side.answers[0].scores if side.text else ()
            if not views:
                continue
            block = text[text.index(f"id={pole}-scores>") :]
            row = re.split("<tr>|</tbody>", block[block.index("texts with a verdict") :])[0]
            sizes = [view.score.n_positive + view.score.n_negative for view in views]
            assert [int(n) for n in re.findall(r"<td>(\d+)", row)] == sizes
            differ = "The more texts, the narrower" in block[: block.index("<div class=lens>")]
            assert differ == (len(set(sizes)) > 1)
            said.add(differ)
    assert said == {True, False}


def test_a_cosine_is_neither_yes_nor_no_and_has_no_empty_f1(site: Path, run: RunView) -> None:
    checked = 0
    for item in run.own:
        text = page_of(site, item)
        for pole, side in item.poles.items():
            views = side.answers[0].scores if side.text else ()
            if not any(view.score.scorer == "embedding" for view in views):
                continue
            block = text[text.index(f"id={pole}-scores>") :]
            block = block[: block.index("<div class=lens>")]
            rows = dict(re.findall(r"<tr><th scope=row>([^<]+)(<td>.*?)(?=<tr>|</tbody>)", block))
            assert rows["F1"].endswith("<td><small>gives none</small>")
            assert rows["F1, shuffled verdicts"].endswith("<small>gives none</small>")
            assert re.search(r"<small>median</small> 0\.\d\d$", rows["yes, at this pole"])
            assert re.search(r"<small>of \d+</small>$", rows["controls below"])
            assert "example-embedder</bdi> (by the cosine of embeddings)" in block
            judged = script_of(site, item).header["judged"][pole]
            assert judged["scorers"][-1] == "embedding"
            cosines = [row[-1] for _, rows, _ in judged["parts"] for row in rows if row[-1]]
            assert cosines
            assert all(re.fullmatch(r"0\.\d\d|unparsed", said) for said, _ in cosines)
            assert not any(wrong for _, wrong in cosines)
            checked += 1
    assert checked > 2


def test_scores_can_be_read_on_a_phone(browser: Browser, site: Path, run: RunView) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    scored = [item for item in run.own if any(side.score for side in item.poles.values())]
    for item in scored[:3]:
        page.goto(f"{site.as_uri()}/{item.page}")
        page.locator("details.figures").evaluate_all("(all) => all.map((e) => (e.open = true))")
        tables = page.locator("section.wide:has(.list.score)")
        assert tables.count()
        for at in range(tables.count()):
            over = tables.nth(at).evaluate("(e) => e.scrollWidth - e.clientWidth")
            assert over <= 0, item.page
        sizes = page.locator(".scores .ends span").evaluate_all(
            "(all) => all.map((e) => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert sizes
        assert min(sizes) >= 11
        assert page.locator(".plot.among text").count() == 0
    page.goto(f"{site.as_uri()}/{run.page}")
    shrunk = page.locator("#labels ~ * .plot.tails").first.evaluate(
        "(e) => e.getBoundingClientRect().width / e.viewBox.baseVal.width"
        " * parseFloat(getComputedStyle(e.querySelector('text')).fontSize)"
    )
    assert shrunk >= 10
    context.close()
