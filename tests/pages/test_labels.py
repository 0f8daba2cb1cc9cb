"""What pages say of labels: who made them, how they scored beside chance, and what they cost."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from builder.config import SiteSettings
from builder.pages import build_site
from builder.pages.label_view import Chance, pole_view, score_view
from builder.pages.labels_view import labels_view
from builder.pages.views import RunView
from builder.records import HAND, Label, LabelFailure, Score
from builder.scores.percentile import Controls
from builder.store import RunStore
from tests.pages.conftest import SMALL, Opened, page_of
from tests.pages.fixture import make_run

LABEL = Label("d", "max", "model", "about tides")


def score(f1: float | None, direction: str = "d", **options: object) -> Score:
    made = Score(direction, "max", "model", "detection", "judge", "about tides", f1, f1,
                 chance=(0.0, 0.3))  # fmt: skip
    return dataclasses.replace(made, **options)  # type: ignore[arg-type]


def chance_of(*values: float) -> Chance:
    return {("model", "detection"): Controls(tuple(sorted(values)))} if values else {}


def test_a_score_says_what_share_of_the_controls_poles_score_lower() -> None:
    chance = chance_of(0.1, 0.2, 0.3, 0.6)
    view = pole_view("max", [LABEL], [score(0.4)], chance)
    assert view.score is not None
    assert (view.score.beats, view.score.controls) == (0.75, 4)
    other = score_view(chance, score(0.4, scorer="fuzzing"))
    assert (other.beats, other.controls) == (None, 0)


@pytest.mark.parametrize(
    ("f1", "controls", "doubt"),
    [
        (0.9, (0.1,) * 20, ""),
        (0.9, (), ""),
        (0.9, (0.1,) * 18 + (0.95,) * 2, "no better than controls"),
        (0.9, (0.9,), "no better than controls"),
        (0.3, (0.1,) * 20, "no better than shuffled verdicts"),
        (None, (0.1,) * 20, ""),
    ],
)
def test_a_label_is_doubted_within_the_range_of_chance(
    f1: float | None, controls: tuple[float, ...], doubt: str
) -> None:
    view = pole_view("max", [LABEL], [score(f1)], chance_of(*controls))
    assert view.doubt == doubt
    assert (view.score is None) == (f1 is None)


def test_the_score_of_another_text_or_labeler_is_not_the_labels() -> None:
    scores = [score(0.9, text="about boats"), score(0.9, labeler="another")]
    assert pole_view("max", [LABEL], scores).score is None


def test_lists_show_detection_where_there_is_one() -> None:
    scores = [score(0.5, scorer="fuzzing"), score(0.7), score(0.9, scorer="embedding")]
    view = pole_view("max", [LABEL], scores)
    assert view.score is not None
    assert view.score.score.f1 == 0.7
    assert [item.score.scorer for item in view.answers[0].scores] == [
        "detection", "fuzzing", "embedding",
    ]  # fmt: skip


def test_embeddings_are_compared_by_auprc_stand_for_no_pole_and_doubt_none() -> None:
    controls: Chance = {("model", "embedding"): Controls((0.1, 0.2, 0.3, 0.6))}
    found = score(None, scorer="embedding", auprc=0.4, chance=None)
    view = pole_view("max", [LABEL], [found], controls)
    (own,) = view.answers[0].scores
    assert (own.beats, own.controls) == (0.75, 4)
    assert (own.doubt, view.doubt, view.score) == ("", "", None)


def test_candidates_are_one_answer_and_a_failed_one_fails_no_pole() -> None:
    given: list[Label | LabelFailure] = [
        LabelFailure("d", "max", "model", "timeout", candidate=0),
        dataclasses.replace(LABEL, candidate=1, is_chosen=False, text="about boats"),
        dataclasses.replace(LABEL, candidate=2),
        Label("d", "max", "keywords", "tide"),
    ]
    view = pole_view("max", given[::-1])
    assert view.state == "label"
    assert view.text == "about tides"
    assert [answer.labeler for answer in view.answers] == ["model", "keywords"]
    assert [item.candidate for item in view.answers[0].candidates] == [0, 1, 2]
    assert view.failure is None
    assert view.answers[1].candidates == ()


def test_a_persons_answer_stands_for_the_pole_even_without_a_pattern() -> None:
    view = pole_view("max", [LABEL, Label("d", "max", HAND, None, author="A. Reader")])
    assert view.state == "none"
    assert view.answers[1].label is LABEL


def test_labels_no_better_than_chance_are_called_so_wherever_they_stand(
    site: Path, run: RunView
) -> None:
    doubtful = [(item, side) for item in run.own for side in item.poles.values() if side.doubt]
    assert doubtful
    lists = (site / "directions.html").read_text(encoding="utf-8")
    script = (site / "data" / "search-pico-chat.js").read_text(encoding="utf-8")
    for item, side in doubtful:
        assert f"{side.doubt.capitalize()}.</strong>" in page_of(site, item)
        assert side.doubt in script
    own = lists[lists.index('id="of-pico-chat"') : lists.index('id="of-pico-lora"')]
    assert own.count('class="label doubtful"') == len(doubtful)
    assert len(re.findall(r"F1&nbsp;0\.\d\d \(0\.\d\d–0\.\d\d\)</span>, no", own)) == len(doubtful)


def test_a_models_page_sums_up_its_labels_and_lists_the_best(site: Path, run: RunView) -> None:
    view = labels_view(run)
    assert sum(row.n for row in view.states) == view.poles == 2 * len(run.own)
    assert any(row.name == "failed: the answer was cut off" for row in view.states)
    assert 0 < view.beyond < view.scored
    values = [row.pole.score.score.f1 or 0 for row in view.best if row.pole.score]
    assert values == sorted(values, reverse=True)
    assert all(not row.pole.doubt for row in view.best)
    text = (site / run.page).read_text(encoding="utf-8")
    assert f"{view.beyond} of {view.scored} scored labels do better" in text
    assert "$0.012 and what has no price" in text
    assert "no price known" in text
    home = (site / "index.html").read_text(encoding="utf-8")
    assert re.search(
        rf"<dd>{view.beyond} <small>of {view.scored} scored; by chance about \d+</small></dd>", home
    )
    assert "<dt>labels cost</dt><dd>$0.012</dd>" in home


def test_a_label_by_hand_stands_with_author_and_date_beside_the_machines(
    site: Path, run: RunView
) -> None:
    (item,) = [i for i in run.own if i.poles["min"].label and i.poles["min"].label.labeler == HAND]
    text = page_of(site, item)
    block = text[text.index('<section class="pole min"') :]
    assert "Refusals of a &lt;b&gt;rude&lt;/b&gt; kind</bdi></h2>" in block
    assert (
        "by <bdi>A. Reader &lt;reader@example.org&gt;</bdi> (written by a person) · 2026-11-21"
        in block
    )
    machines = item.poles["min"].answers[1:]
    assert machines
    assert f'<details class="fold" open><summary>{len(machines)} further answer' in block


def test_candidates_are_shown_with_what_decided_and_failures_by_reason(
    site: Path, run: RunView
) -> None:
    texts = [page_of(site, i) for i in run.own if any(p.answers and p.answers[0].candidates
                                                      for p in i.poles.values())]  # fmt: skip
    assert texts
    for text in texts:
        assert "3 candidates, 64\xa0% alike" in text
        assert re.search(r"F1&nbsp;\d\.\d\d \(.{9}\)</small> <strong class=\"kept\">", text)
        assert "failed: the labeler refused" in text


_LABEL = re.compile(r'<(?:bdi|span) class="?label.*?</(?:bdi|span)>(?: <small>F1.*?</small>)?')


def linked(page: str) -> list[tuple[str, str, str]]:
    """Rows of a page's lists of other directions of its run: (file name, pole or "", row)."""
    part = page[page.index('<h2 id="nearby">') : page.index('<h2 id="numbers">')]
    rows = re.findall(r"<(?:tr|li)>.*?</(?:tr|li)>", part)
    found = [(re.search(r'class=id href="([^/"]*?)\.html(?:#(\w+))?"', row), row) for row in rows]
    return [(address[1], address[2] or "", row) for address, row in found if address]


def test_labels_of_other_directions_are_grey_where_they_are_no_better_than_chance(
    site: Path, run: RunView
) -> None:
    # In these lists F1 stands without its interval, which the page behind the link gives.
    sides = {item.name: item.poles for item in run.directions}
    said = {True: 0, False: 0}
    for item in run.directions:
        for name, pole, row in linked(page_of(site, item)):
            poles = sides[name]
            shown = [poles["max" if pole == "max" else "min"]] if pole else poles.values()
            labels = _LABEL.findall(row)
            for side, label in zip(shown, labels, strict=True):
                f1 = f"F1&nbsp;{side.score.score.f1:.2f}" if side.score else "F1"
                assert (f1 in label) == (side.score is not None)
                assert ("doubtful" in label) == bool(side.doubt)
                said[bool(side.doubt)] += side.score is not None
    assert min(said.values()) > 5


def test_similar_labels_are_linked_and_controls_among_them_named(site: Path, run: RunView) -> None:
    controls = {item.name for item in run.directions if item.is_control}
    poles = {True: 0, False: 0}
    for item in run.own:
        for name, pole, row in linked(page_of(site, item)):
            if pole:
                assert ("control" in re.sub(r"<bdi.*?</bdi>", "", row)) == (name in controls)
                poles[name in controls] += 1
    assert min(poles.values()) > 0


def test_everything_is_said_without_scores_and_without_labels(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "pico", name="pico", title="Pico", seed=1, layers=2, ranks=2,
                      documents=30, scored=False)  # fmt: skip
    out = tmp_path / "site"
    build_site([folder], out, SMALL)
    model = (out / "m" / "pico" / "index.html").read_text(encoding="utf-8")
    assert "No label of this model is scored" in model
    assert "Best labels" not in model
    assert "by-score" not in model
    directions = "".join(path.read_text("utf-8") for path in (out / "m" / "pico").glob("l0*.html"))
    assert "Not scored: nothing says how well this label fits other texts." in directions
    assert "judged texts" not in directions
    assert "F1" not in (out / "directions.html").read_text(encoding="utf-8")

    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    with RunStore(bare / "run.duckdb", read_only=False) as store:
        for labeler in {label.labeler for label in store.labels()}:
            store.forget_labels(labeler)
        for labeler in {failure.labeler for failure in store.label_failures()}:
            store.forget_labels(labeler)
    build_site([bare], tmp_path / "other", SiteSettings(examples=6, context=16))
    model = (tmp_path / "other" / "m" / "pico" / "index.html").read_text(encoding="utf-8")
    assert "not asked" in model
    assert "labelled</th>" not in model


def ready(opened: Opened, site: Path, query: str) -> None:
    opened.page.goto(f"{site.as_uri()}/search.html{query}")
    expect(opened.page.locator("#status")).to_contain_text("pole")
    expect(opened.page.locator("#status")).not_to_contain_text("searching")


def test_search_orders_by_score_and_keeps_that_in_the_address(opened: Opened, site: Path) -> None:
    page = opened.page
    ready(opened, site, "")
    page.get_by_label("score of the label").check()
    expect(page.locator("#status")).to_contain_text("by score")
    shown = page.locator("#results .meta").all_inner_texts()
    shape = re.compile(r"F1 (\d\.\d\d) \(\d\.\d\d–\d\.\d\d\)")
    values = [float(found[1]) if (found := shape.search(s)) else -1 for s in shown]
    assert values[0] > 0.8
    assert values == sorted(values, reverse=True)
    expect(page).to_have_url(re.compile("sort=score"))
    kept = page.url
    page.goto("about:blank")
    page.goto(kept)
    expect(page.locator("#status")).to_contain_text("by score")
    assert opened.faults == []


def test_more_like_this_shows_similar_labels_and_is_an_address(opened: Opened, site: Path) -> None:
    page = opened.page
    ready(opened, site, "?q=winterberry&model=pico-chat")
    first = page.locator("#results li").first
    wanted = first.locator("code").first.inner_text()
    n = int(first.locator(".like").inner_text().split()[0])
    first.locator(".like").click()
    for kind in page.locator("input[name=kind]").all():
        kind.check()
    expect(page.locator("#results li")).to_have_count(n + 1)
    expect(page.locator("#results li").first.locator("code").first).to_have_text(wanted)
    expect(page.locator("#status")).to_contain_text("with labels like")
    assert "winterberry" in page.locator("#results li").nth(1).inner_text()
    kept = page.url
    assert "like=pico-chat" in kept
    page.goto("about:blank")
    page.goto(kept)
    expect(page.locator("#results li")).to_have_count(n + 1)
    page.locator("#q").fill("octane")
    expect(page.locator("#status")).to_contain_text("found")
    assert "like=" not in page.url
    assert opened.faults == []


@pytest.mark.parametrize("like", ["nowhere", "%00", "pico-chat/../x/max", "<script>"])
def test_an_address_that_asks_for_labels_like_nothing_shows_all(
    opened: Opened, site: Path, like: str
) -> None:
    ready(opened, site, f"?like={like}")
    expect(opened.page.locator("#status")).to_contain_text("by singular value")
    assert opened.faults == []
