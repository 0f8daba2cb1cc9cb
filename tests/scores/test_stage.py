"""The stage scores what is labelled, writes it whole, and does nothing twice."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import pipeline
from builder.config import ScoreSettings
from builder.errors import ConfigError, StoreError
from builder.label_stage import evidences
from builder.labels.split import with_near_duplicates
from builder.records import HAND, Label, Pole
from builder.run_folder import Run
from builder.score_stage import make_scores
from builder.scores.pools import pole_pools
from builder.scores.words import JUDGE as WORDS
from builder.store import RunStore
from tests.scanned import run_of, scan, write_texts
from tests.scores.running import (
    SCAN,
    WORDS_OF,
    all_scores,
    alpha,
    put_labels,
    scanned,
    texts,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return scanned(tmp_path / "one")


def test_keyword_labels_are_scored_by_their_words(run: Run) -> None:
    put_labels(run, alpha)
    settings = run.settings.model_copy(update={"score": ScoreSettings(random=6)})
    run = dataclasses.replace(run, settings=settings)
    assert pipeline.make_scores(run) == {"scored": 8, "unparsed_texts": 0}
    scores = all_scores(run)
    assert Counter(score.scorer for score in scores) == {"detection": 8, "fuzzing": 8}
    for score in scores:
        assert score.judge == WORDS
        assert score.split == "test"
        assert score.n_positive + score.n_negative == len(score.judged)
        assert score.f1 is not None
        assert score.cost == 0.0
        strata = Counter(item.stratum for item in score.judged)
        at_random = strata["middle"] + strata["random"]
        # Counting words in whole texts costs nothing, and takes all there are.
        assert at_random <= 6 if score.scorer == "fuzzing" else at_random > 15
        assert sum(item.weight for item in score.judged) == pytest.approx(1 - score.between)


def test_scores_follow_from_what_is_stored_of_the_judged_texts(run: Run) -> None:
    put_labels(run, alpha)
    make_scores(run)
    for score in all_scores(run):
        hits = sum(i.weight for i in score.judged if i.truth and (i.verdict or 0) >= 0.5)
        alarms = sum(i.weight for i in score.judged if not i.truth and (i.verdict or 0) >= 0.5)
        missed = sum(i.weight for i in score.judged if i.truth and (i.verdict or 0) < 0.5)
        assert score.f1 == pytest.approx(2 * hits / (2 * hits + alarms + missed))


def test_the_same_labels_give_the_same_bytes_and_are_not_scored_again(
    run: Run, tmp_path: Path
) -> None:
    other = scanned(tmp_path / "two")
    for item in (run, other):
        put_labels(item, alpha)
        make_scores(item)
    with RunStore(run.database_path) as one, RunStore(other.database_path) as two:
        assert one.dump()["scores"] == two.dump()["scores"]
    record = run.folder / "stages" / "scores.json"
    before = record.stat().st_mtime_ns
    assert make_scores(run)["scored"] == 8
    assert record.stat().st_mtime_ns == before
    assert not list(run.folder.glob("tmp*"))


def test_a_changed_label_is_scored_again_and_others_are_left(run: Run) -> None:
    put_labels(run, alpha)
    put_labels(run, lambda direction, pole: [Label(direction, pole, HAND, "beta3")])
    make_scores(run)
    before = {(s.direction, s.pole, s.labeler, s.scorer): s for s in all_scores(run)}
    put_labels(run, lambda direction, pole: [Label(direction, pole, HAND, "beta5")])
    make_scores(run)
    for score in all_scores(run):
        key = (score.direction, score.pole, score.labeler, score.scorer)
        if score.labeler == HAND:
            assert score.text == "beta5"
            assert score.judge == WORDS
        else:
            assert score == before[key]
    assert {score.labeler for score in all_scores(run)} == {HAND, "keywords"}


def test_labels_by_hand_are_taken_up_before_scores_are_made(run: Run) -> None:
    put_labels(run, alpha)
    with RunStore(run.database_path) as store:
        direction = store.directions()[0].id
    entry = f'direction = "{direction}"\npole = "min"\nauthor = "A. Reader"\ndate = 2026-11-21'
    (run.folder / "labels.toml").write_text(f'[[label]]\n{entry}\ntext = "beta7"\n')
    make_scores(run)
    by_hand = [score for score in all_scores(run) if score.labeler == HAND]
    assert {(score.direction, score.pole, score.text) for score in by_hand} == {
        (direction, "min", "beta7")
    }
    (run.folder / "labels.toml").unlink()
    make_scores(run)
    assert {score.labeler for score in all_scores(run)} == {"keywords"}


def test_scores_of_a_labeler_without_labels_go(run: Run) -> None:
    put_labels(run, alpha)
    make_scores(run)
    stale = dataclasses.replace(all_scores(run)[0], labeler="gone")
    with RunStore(run.database_path, read_only=False) as store:
        store.replace_scores("gone", [stale])
    make_scores(run)
    assert {score.labeler for score in all_scores(run)} == {"keywords"}


def test_a_label_that_was_made_from_a_judged_document_is_refused(run: Run) -> None:
    with RunStore(run.database_path) as store:
        pools = {
            (pool.direction, pool.pole): pool
            for pool in pole_pools(store, [row.id for row in store.directions()])
        }

    def saw(direction: str, pole: Pole) -> list[Label]:
        document = pools[direction, pole].items["random"][0].window.doc_id
        return [Label(direction, pole, "keywords", "alpha1", example_docs=(5, document))]

    put_labels(run, saw)
    with pytest.raises(StoreError, match="held out for scores; run `weightatlas label` again"):
        make_scores(run)
    assert all_scores(run) == []


def _near(folder: Path) -> Run:
    """A run of texts that are there three times, but for a word near the beginning."""
    folder.mkdir()
    rng = random.Random(4)
    said = [rng.choices(WORDS_OF, k=50) for _ in range(120)]
    near = [[*text[:3], word, *text[4:]] for word in ("indeed", "today") for text in said]
    lines = [" ".join(text) for text in (*said, *near)]
    run = run_of(folder / "run", write_texts(folder / "a.jsonl", lines), scan=SCAN | {"top": 20})
    scan(run)
    return run


@pytest.mark.parametrize("make", [scanned, _near])
def test_what_is_judged_and_what_made_labels_share_no_near_duplicate(
    make: Callable[[Path], Run], tmp_path: Path
) -> None:
    run = make(tmp_path / "a")
    with RunStore(run.database_path) as store:
        alike = store.near_duplicates()
        shown = {
            (item.direction, item.pole): {
                example.window.doc_id for example in (*item.examples, *item.contrast, *item.middle)
            }
            for item in evidences(store)
        }

    def saw_all(direction: str, pole: Pole) -> list[Label]:
        docs = tuple(shown[direction, pole])
        return [Label(direction, pole, "keywords", "alpha1", example_docs=docs)]

    put_labels(run, saw_all)
    make_scores(run)
    scores = all_scores(run)
    assert len(scores) == 16
    more = 0
    for score in scores:
        judged = {item.doc_id for item in score.judged}
        also = with_near_duplicates(judged, alike)
        more += len(also) - len(judged)
        assert judged
        assert not also & shown[score.direction, score.pole]
    assert bool(more) is (make is _near)


def test_scores_do_not_move_when_every_document_is_there_twice(run: Run, tmp_path: Path) -> None:
    twice = scanned(tmp_path / "twice", copies=2)
    for item in (run, twice):
        put_labels(item, alpha)
        make_scores(item)
    with RunStore(twice.database_path) as store:
        counts = Counter({"documents": 0})
        for count in store.counts():
            counts[count.what] += count.n
        assert (counts["documents"], counts["distinct"]) == (240, 120)
    assert all_scores(run) == all_scores(twice)


def test_without_a_scan_there_is_nothing_to_score(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", write_texts(tmp_path / "a.jsonl", texts(3)))
    with pytest.raises(ConfigError, match="nothing is scanned yet"):
        make_scores(run)
