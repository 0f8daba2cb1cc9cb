"""Every judged text is in its page's file as its judge saw it, with what every scorer said."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder.pages.formats import fixed
from builder.pages.label_view import pole_view
from builder.pages.packed import letters
from builder.pages.score_view import (
    QUOTED,
    QUOTED_RIGHT,
    Count,
    PoleScores,
    Texts,
    pole_scores,
    quoted,
)
from builder.pages.spans import plain
from builder.pages.views import DirectionView, RunView
from builder.records import (
    ANY_ROLE,
    POLES,
    RANKING,
    Judged,
    Label,
    Pole,
    Score,
    Scorer,
    Stratum,
    Window,
)
from builder.store import RunStore
from tests.pages.conftest import page_of
from tests.pages.packing import Packed, random_texts, script_of

LABEL = Label("d", "max", "model", "about tides")
#: Texts of a page that has no examples.
NONE: dict[Pole, Sequence[Any]] = {"max": [], "min": []}


def judged_by(scorer: Scorer, judged: Sequence[Judged]) -> Score:
    f1 = None if scorer in RANKING else 0.5
    return Score("d", "max", "model", scorer, "judge", "about tides", f1, 0.5, judged=tuple(judged))


def scores_of(scores: list[Score], random: Sequence[Window] = ()) -> PoleScores:
    texts = Texts("max", NONE, [], random, 0)
    found = pole_scores(pole_view("max", [LABEL], scores), scores, texts, ())
    assert found is not None
    return found


def rows_of(found: PoleScores, stratum: Stratum) -> tuple[list[list[Any]], list[int]]:
    """Its rows, and the documents that are only named."""
    ((rows, rest),) = [part[1:] for part in found.judged["parts"] if part[0] == stratum]
    return rows, rest


class _Shown:
    """One pole of a page as its file has it: every judged text by stratum and document."""

    def __init__(self, script: Packed, random: Packed, pole: Pole) -> None:
        self.script, self.random = script, random
        self.judged = script.header["judged"][pole]
        self.rows = {
            (stratum, self.document(row[0])): row
            for stratum, rows, _ in self.judged["parts"]
            for row in rows
        }
        self.named = {(stratum, doc) for stratum, _, rest in self.judged["parts"] for doc in rest}

    def document(self, place: Any) -> int:
        if isinstance(place, list):
            return int(place[0])
        if place < 0:
            return int(self.random.header["windows"][~place][1])
        return int(self.script.header["examples"][place][6])

    def start(self, place: int) -> tuple[int, int]:
        """The first token within the document of what is kept of a text, and how many those are."""
        if place < 0:
            return self.random.header["windows"][~place][2], sum(self.random.counts(~place))
        return self.script.header["examples"][place][9], sum(self.script.counts(place))


def windows_of(
    store: RunStore, item: DirectionView, pole: Pole
) -> dict[tuple[Stratum, int], Window]:
    """The windows that judged texts are parts of, by stratum and place."""
    found: dict[tuple[Stratum, int], Window] = {}
    for example in store.examples(item.row.id, role=ANY_ROLE):
        stratum: Stratum = "pole" if example.pole == pole else "other"
        found[stratum, example.place] = example.window
    for place, window in enumerate(store.held_out()):
        found["middle", place] = found["random", place] = window
    return found


def verdict_of(item: Judged | None, scorer: Scorer) -> Any:
    """How a verdict is to be written."""
    if item is None:
        return None
    if item.verdict is None:
        return ["unparsed", 0]
    if scorer in RANKING:
        return [fixed(item.verdict, 2), 0]
    yes = item.verdict >= 0.5
    return yes + 2 * (yes != item.truth)


def test_a_page_counts_and_its_file_lists_every_judged_text(
    site: Path, run: RunView, run_folders: list[Path]
) -> None:
    checked, named = 0, 0
    with RunStore(run_folders[0] / "run.duckdb") as store:
        random = random_texts(site, run.name)
        for item in run.own:
            page, script = page_of(site, item), script_of(site, item)
            judged = store.scores(item.row.id, judged=True)
            assert list(script.header["judged"]) == [
                pole for pole in POLES if f"id={pole}-scores>" in page
            ]
            for pole, side in item.poles.items():
                labeler = side.answers[0].labeler if side.text else None
                own = [s for s in judged if s.pole == pole and s.labeler == labeler]
                if not own:
                    continue
                block = page[page.index(f"id={pole}-scores>") :]
                block = block[: block.index("<div class=lens>")]
                shown = _Shown(script, random, pole)
                texts = {
                    (j.stratum, j.doc_id): {s.scorer: j2 for s in own for j2 in s.judged
                                            if (j2.stratum, j2.place) == (j.stratum, j.place)}
                    for s in own for j in s.judged
                }  # fmt: skip
                assert f"All {len(texts)} judged texts" in block
                assert shown.rows.keys() | shown.named == texts.keys()
                assert not shown.rows.keys() & shown.named
                scorers = shown.judged["scorers"]
                assert scorers == [view.score.scorer for view in side.answers[0].scores]
                for key, row in shown.rows.items():
                    said = [verdict_of(texts[key].get(scorer), scorer) for scorer in scorers]
                    assert row[3:] == said
                for key in shown.named:
                    asked = [j for scorer, j in texts[key].items() if scorer not in RANKING]
                    assert key[0] in {"middle", "random"}
                    assert [j.verdict for j in asked] == [0.0] * len(asked)
                for s in own:
                    if s.scorer in RANKING:
                        continue
                    yes = [j for j in s.judged if j.stratum == "pole" and j.verdict is not None]
                    n_yes = sum((j.verdict or 0) >= 0.5 for j in yes)
                    assert re.search(rf"<td>{n_yes} of {len(yes)}<", block)
                checked += 1
                named += len(shown.named)
    assert checked > 10
    assert named > 10


def test_a_row_points_at_the_part_that_was_judged_and_at_the_marked_tokens(
    site: Path, run: RunView, run_folders: list[Path]
) -> None:
    seen: set[tuple[str, bool, bool]] = set()
    with RunStore(run_folders[0] / "run.duckdb") as store:
        random = random_texts(site, run.name)
        for item in run.own:
            script = script_of(site, item)
            scores = store.judged_scores_of([item.row.id])[item.row.id]
            for pole in script.header["judged"]:
                shown = _Shown(script, random, pole)
                windows = windows_of(store, item, pole)
                labeler = item.poles[pole].answers[0].labeler
                key = (pole, labeler, "test")
                held_by = [s for s in scores if (s.pole, s.labeler, s.split) == key]
                items = [j for s in held_by for j in s.judged]
                for (stratum, doc), (place, marked, part, *_) in shown.rows.items():
                    own = [j for j in items if (j.stratum, j.doc_id) == (stratum, doc)]
                    window, first, length = windows[stratum, own[0].place], *own[0][6:8]
                    asked = next((j.marked for j in own if j.marked), ())
                    if isinstance(place, list):
                        text = plain(" ".join(window.part(first, length).text.split()))
                        assert place[1].removeprefix("… ").removesuffix(" …") in text
                        seen.add(("quoted", bool(asked), True))
                        continue
                    start, kept = shown.start(place)
                    # All by the number of the token within its document.
                    held = range(start, start + kept)
                    wanted = [window.start + first + at for at in asked]
                    assert [start + at for at in marked or []] == [t for t in wanted if t in held]
                    low = max(start, window.start + first)
                    high = min(start + kept, window.start + first + length)
                    assert part == (0 if (low, high) == (start, start + kept) else
                                    [low - start, high - low])  # fmt: skip
                    seen.add((stratum, bool(marked), part == 0))
    strata = {"pole", "other", "middle", "random"}
    assert {name for name, _, _ in seen} >= strata | {"quoted"}
    assert {(name, True, False) for name in strata} <= seen


def test_judged_texts_add_little_to_a_file(site: Path, run: RunView) -> None:
    for item in run.own:
        script = script_of(site, item)
        judged = script.header["judged"]
        size = len(letters(gzip.compress(json.dumps(judged).encode())))
        n = sum(len(rows) for pole in judged.values() for _, rows, _ in pole["parts"])
        assert size < 40 * n + 200, item.page


def test_of_many_random_texts_rightly_judged_most_are_named_only() -> None:
    ends = np.arange(1, 21, dtype=np.uint32)
    windows = [Window(1000 + at, "s", 0, "x" * 20, ends) for at in range(200)]
    judged = [
        Judged("random", at, 1000 + at, False, None if at == 150 else float(at == 100), 0.1, 0, 20)
        for at in range(200)
    ]
    found = scores_of([judged_by("detection", judged)], windows)
    assert found.n_judged == 200
    rows, rest = rows_of(found, "random")
    assert [row[3] for row in rows] == [0] * QUOTED_RIGHT + [3, ["unparsed", 0]]
    assert [row[0] for row in rows[-2:]] == [~100, ~150]
    assert rest == [1000 + at for at in range(QUOTED_RIGHT, 200) if at not in {100, 150}]


def test_a_text_is_named_only_where_all_that_say_yes_or_no_are_right() -> None:
    def texts(verdicts: Sequence[float | None]) -> list[Judged]:
        return [Judged("random", at, at, False, v, 0.1, 0, 1) for at, v in enumerate(verdicts)]

    scores = [
        judged_by("detection", texts([*[0.0] * 8, 1.0, None])),
        judged_by("embedding", texts([0.9] * 10)),
    ]
    found = scores_of(scores)
    rows, rest = rows_of(found, "random")
    assert rest == [6, 7]
    assert [row[3:] for row in rows[-2:]] == [[3, ["0.90", 0]], [["unparsed", 0], ["0.90", 0]]]
    assert found.columns[1].counts["random"] == Count(None, 10, 0.9)


def test_a_verdict_between_yes_and_no_is_written_out() -> None:
    said = [(False, 1.0), (False, 0.0), (True, 0.5), (True, 0.49), (False, 0.25), (True, None)]
    judged = [Judged("pole", at, at, *both, 0.1, 0, 1) for at, both in enumerate(said)]
    rows, _ = rows_of(scores_of([judged_by("fuzzing", judged)]), "pole")
    assert [row[3] for row in rows] == [
        3, 0, ["yes 0.50", 0], ["no 0.49", 1], ["no 0.25", 0], ["unparsed", 0],
    ]  # fmt: skip


def test_a_random_text_is_shown_as_the_judge_saw_it() -> None:
    ends = np.cumsum([len(f"w{at} ") for at in range(10)]).astype(np.uint32)
    windows = [Window(7, "s", 0, "".join(f"w{at} " for at in range(10)), ends)]
    item = Judged("random", 0, 7, False, 0.0, 0.1, first=3, length=4, marked=(1,))
    for judged, row in (
        (item, [-1, [4], [3, 4]]),
        (item._replace(marked=()), [-1, 0, [3, 4]]),
        (item._replace(first=0, length=10), [-1, [1], 0]),
        # Not a part of the text that stands there now.
        (item._replace(length=8), [[7, ""], 0, 0]),
        (item._replace(doc_id=8), [[8, ""], 0, 0]),
        (item._replace(place=1), [[7, ""], 0, 0]),
    ):
        rows, _ = rows_of(scores_of([judged_by("fuzzing", [judged])], windows), "random")
        assert [found[:3] for found in rows] == [row]


def test_a_quoted_text_is_short_and_hides_nothing() -> None:
    text = "one <b>two</b>\u202e three\nfour " * 40
    ends = np.array([match.end() for match in re.finditer(r"\S+\s*", text)], dtype=np.uint32)
    said = quoted(Window(1, "s", 0, text, ends), 60)
    assert "\u202e" not in said
    assert "⟦U+202E⟧" in said
    assert "\n" not in said
    assert said.startswith("… ")
    assert said.endswith(" …")
    assert len(said.replace("⟦U+202E⟧", "?")) <= QUOTED + 4
    assert quoted(Window(1, "s", 0, "a \n b", np.array([2, 5], np.uint32)), 0) == "a b"
    assert quoted(Window(1, "s", 0, "", np.zeros(0, np.uint32)), 0) == ""
