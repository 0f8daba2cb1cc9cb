"""Scores say what is known: a true label does well, others do not, where the truth was planted.

Of all three shipped organisms, from the scan to the scores in the database. The judge knows the
truth, so what is tested is which texts are judged and how they are counted.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from builder.label_stage import evidences
from builder.labels.split import with_near_duplicates
from builder.records import STRATA, Label, Pole, Score, Scorer, Stratum
from builder.scores.scoring import Plan, score_label
from tests.scores.conftest import Organism
from tests.scores.knowing import VAGUE
from tests.scores.making import Truth

pytestmark = pytest.mark.slow

LIMITS: dict[Stratum, int] = {"pole": 10, "other": 10, "middle": 20, "random": 20}
EVERY: dict[Stratum, int] = dict.fromkeys(STRATA, 10**6)
SCORERS: tuple[Scorer, ...] = ("detection", "fuzzing")


def _true(organism: Organism, scorer: Scorer = "detection") -> dict[tuple[str, Pole], Score]:
    """The scores of true labels, by pole."""
    return {
        (direction, pole): score
        for (labeler, own, direction, pole), score in organism.scores.items()
        if labeler == "true" and own == scorer
    }


def _found(score: Score) -> float:
    """The share of the positive texts that the label fits: for a true one, what is planted."""
    return float(np.mean([item.verdict or 0 for item in score.judged if item.truth]))


def _alarms(score: Score) -> float:
    """The share of all documents that the label fits and the pole does not hold."""
    return sum(i.weight for i in score.judged if i.verdict and not i.truth)


def _pure(organism: Organism) -> dict[tuple[str, Pole], Score]:
    """The poles whose positive texts are all but all planted for one behaviour."""
    return {pole: score for pole, score in _true(organism).items() if _found(score) >= 0.95}


def _of(organism: Organism, labeler: str, pole: tuple[str, Pole]) -> Score:
    """The score of that labeler, every random text judged."""
    return organism.scores_of_all[(labeler, "detection", *pole)]


def _others(organism: Organism) -> list[str]:
    return sorted({key[0] for key in organism.scores if key[0].startswith("other")})


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_true_label_does_well_where_the_pole_shows_what_was_planted(
    organism: Organism, scorer: Scorer
) -> None:
    """Planted documents that do not excite a direction are false alarms of the label, rightly."""
    reached = set()
    for score in _true(organism, scorer).values():
        assert score.f1 is not None
        assert score.auprc is not None
        # Of eleven texts two that are not planted leave 2 x 9 / (9 + 11) = 0.9.
        if _found(score) >= 9 / 11 and not _alarms(score):
            assert score.f1 >= 0.9
            assert score.auprc >= 0.8
            reached.add(score.text)
        if _found(score) >= 0.95:
            assert score.chance is not None
            assert score.f1_interval is not None
            assert score.f1_interval[0] > score.chance[1]
    assert reached, "of the organism's three behaviours"


def test_a_true_label_falls_short_only_by_what_is_not_planted_and_by_false_alarms(
    organism: Organism,
) -> None:
    for score in _true(organism).values():
        share = sum(item.weight for item in score.judged if item.truth)
        found = share * _found(score)
        assert score.f1 == pytest.approx(2 * found / (found + _alarms(score) + share))


def test_a_label_of_another_behaviour_is_at_chance(organism: Organism) -> None:
    said_yes = 0
    assert _others(organism)
    for pole, true in _pure(organism).items():
        for labeler in _others(organism):
            score = _of(organism, labeler, pole)
            assert score.text != true.text
            assert score.f1 is not None
            assert score.chance is not None
            assert score.chance[0] <= score.f1 <= score.chance[1]
            _is_far_below(score, _of(organism, "true", pole))
            said_yes += any(item.verdict for item in score.judged)
    assert said_yes


def test_a_label_of_what_is_common_is_at_chance(organism: Organism) -> None:
    """Words of real documents, to which the judge says yes in every stratum at times."""
    judge = Truth(lambda label, window: float(label in window.text))
    plan = Plan({"detection": judge}, {"detection": EVERY})
    at_chance = tried = 0
    pure = _pure(organism)
    for pool in organism.pools:
        if (pool.direction, pool.pole) not in pure:
            continue
        for word in (" to ", " is ", " in ", "?"):
            label = Label(pool.direction, pool.pole, "a-model", word)
            score = score_label(label, pool, "detection", plan, "test")
            yes = [item.verdict == 1 for item in score.judged if not item.truth]
            if not 0 < sum(yes) < len(yes):
                continue
            assert score.f1 is not None
            assert score.chance is not None
            _is_far_below(score, _of(organism, "true", (pool.direction, pool.pole)))
            tried += 1
            at_chance += score.f1 <= score.chance[1]
    assert tried >= 4
    # One in forty is above by chance, and a common word may truly be more common at a pole.
    assert at_chance >= 0.75 * tried


def _is_far_below(score: Score, true: Score) -> None:
    """Both measures are below the whole intervals of the true label's."""
    assert score.f1 is not None
    assert true.f1_interval is not None
    assert score.f1 < true.f1_interval[0]
    assert score.auprc is not None
    assert true.auprc_interval is not None
    assert score.auprc < true.auprc_interval[0]


@pytest.mark.parametrize("labeler", [f"vague {at}" for at in range(len(VAGUE))])
def test_a_vague_label_is_far_below_the_true_one(organism: Organism, labeler: str) -> None:
    for pole, true in _pure(organism).items():
        score = organism.scores[(labeler, "detection", *pole)]
        assert score.text in VAGUE
        assert {item.verdict for item in score.judged} == {1.0}
        assert (score.f1 or 1) < 0.1
        assert (score.auprc or 1) < 0.1
        _is_far_below(score, true)
        assert score.f1_interval is not None
        assert true.f1_interval is not None
        assert score.f1_interval[1] < true.f1_interval[0]


def test_a_label_with_the_wording_of_one_example_is_far_below_the_true_one(
    organism: Organism,
) -> None:
    """The wording of an example that the labeler saw, and the judge did not."""
    for pole in _pure(organism):
        _is_far_below(_of(organism, "narrow", pole), _of(organism, "true", pole))


@pytest.mark.parametrize("labeler", ["missing", "extra"])
def test_labels_that_miss_or_add_documents_score_less(organism: Organism, labeler: str) -> None:
    """The two checks of Oikarinen, Yan and Weng 2025, which recall, AUC and others fail."""
    poles = _pure(organism)
    for pole in poles:
        score, true = _of(organism, labeler, pole), _of(organism, "true", pole)
        assert None not in (score.f1, score.auprc, true.f1, true.auprc)
        assert (score.f1 or 0) < (true.f1 or 0)
        assert (score.auprc or 0) < (true.auprc or 0)
    # At as few texts as are judged by default a single pole may be lucky.
    for measure in ("f1", "auprc"):
        few, known = (
            [getattr(organism.scores[(who, "detection", *pole)], measure) for pole in poles]
            for who in (labeler, "true")
        )
        assert np.mean(few) < np.mean(known) - 0.15


def test_nothing_that_a_labeler_may_see_is_judged(organism: Organism) -> None:
    alike = organism.store.near_duplicates()
    reservoir = {window.doc_id for window in organism.store.reservoir()}
    held_out = {window.doc_id for window in organism.store.held_out()}
    assert alike
    for evidence, pool in zip(evidences(organism.store), organism.pools, strict=True):
        assert (evidence.direction, evidence.pole) == (pool.direction, pool.pole)
        shown = (*evidence.examples, *evidence.contrast, *evidence.middle)
        seen = {example.window.doc_id for example in shown} | (reservoir - evidence.withheld)
        judged = {item.window.doc_id for item in pool.take(EVERY)}
        assert judged
        assert not with_near_duplicates(judged, alike) & seen
        at_random = {
            item.window.doc_id for stratum in ("middle", "random") for item in pool.items[stratum]
        }
        assert at_random <= held_out


def test_a_pole_of_real_documents_has_texts_of_every_stratum(organism: Organism) -> None:
    for pool in organism.pools:
        items = Counter(item.stratum for item in pool.take(LIMITS))
        assert items["pole"] >= 5, pool.direction
        assert items["middle"] == items["random"] == 20, pool.direction
        assert sum(pool.shares.values()) + pool.between == pytest.approx(1.0)
        assert 0.001 < pool.base_rate < 0.2
