"""Scores say what is known: a true label does well, others do not, where the truth was planted.

The judge knows the truth, so what is tested is which texts are judged and how they are counted.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from builder.labels.split import split_examples
from builder.records import ANY_ROLE, STRATA, Label, Score, Stratum, Window
from builder.scores.items import Pool
from builder.scores.scoring import Plan, score_label
from tests.scores.conftest import Organism
from tests.scores.making import Truth

LIMITS: dict[Stratum, int] = {"pole": 10, "other": 10, "middle": 20, "random": 20}
EVERY: dict[Stratum, int] = dict.fromkeys(STRATA, 10**6)
VAGUE = ("text", "various topics")


def _knows(label: str, window: Window) -> float:
    """The judge: "planted/..." by the source; vague labels fit all, others what holds them."""
    if label.startswith("planted/"):
        return float(window.source == label)
    return float(label in VAGUE or label in window.text)


def _score(pool: Pool, text: str, most: dict[Stratum, int] = LIMITS) -> Score:
    plan = Plan({"detection": Truth(_knows)}, {"detection": most})
    label = Label(pool.direction, pool.pole, "a-model", text)
    return score_label(label, pool, "detection", plan, "test")


def _pure(organism: Organism) -> list[tuple[Pool, str]]:
    """Poles all of whose examples are planted for one behaviour, with their source."""
    found = []
    for pool in organism.pools:
        examples = organism.store.examples(pool.direction, pole=pool.pole, role=ANY_ROLE)
        ((source, n),) = Counter(item.window.source for item in examples).most_common(1)
        if source.startswith("planted/") and n == len(examples) == 20:
            found.append((pool, source))
    return found


def test_a_true_label_does_well(organism: Organism) -> None:
    poles = _pure(organism)
    assert poles
    for pool, source in poles:
        for most in (LIMITS, EVERY):
            score = _score(pool, source, most)
            assert score.f1 is not None
            assert score.f1 >= 0.9
            assert score.auprc is not None
            assert score.auprc >= 0.9
            assert score.chance is not None
            assert score.f1_interval is not None
            assert score.f1_interval[0] > score.chance[1]


def test_a_label_of_another_behaviour_is_at_chance(organism: Organism) -> None:
    said_yes = 0
    for pool, source in _pure(organism):
        others = {f"planted/{behaviour.id}" for behaviour in organism.pair.behaviours} - {source}
        assert others
        for other in others:
            score, true = (_score(pool, said, EVERY) for said in (other, source))
            assert score.f1 is not None
            assert score.chance is not None
            assert score.chance[0] <= score.f1 <= score.chance[1]
            _is_far_below(score, true)
            said_yes += any(item.verdict for item in score.judged)
    assert said_yes


def test_a_label_of_what_is_common_is_at_chance(organism: Organism) -> None:
    """Words of real documents, to which the judge says yes in every stratum at times."""
    at_chance = tried = 0
    for pool, source in _pure(organism):
        true = _score(pool, source, EVERY)
        for word in (" to ", " is ", " in ", "?"):
            score = _score(pool, word, EVERY)
            yes = [item.verdict == 1 for item in score.judged if not item.truth]
            if not 0 < sum(yes) < len(yes):
                continue
            assert score.f1 is not None
            assert score.chance is not None
            _is_far_below(score, true)
            tried += 1
            at_chance += score.f1 <= score.chance[1]
    assert tried >= 4
    # One in forty is above by chance, and a common word may truly be more common at a pole.
    assert at_chance >= 0.75 * tried


def _is_far_below(score: Score, true: Score) -> None:
    """Both measures are, by more than both intervals."""
    assert score.auprc is not None
    assert score.auprc < 0.2
    assert score.f1_interval is not None
    assert true.f1_interval is not None
    assert score.f1_interval[1] < true.f1_interval[0]
    assert score.auprc_interval is not None
    assert true.auprc_interval is not None
    assert score.auprc_interval[1] < true.auprc_interval[0]


@pytest.mark.parametrize("vague", VAGUE)
def test_a_vague_label_is_far_below_the_true_one(organism: Organism, vague: str) -> None:
    for pool, source in _pure(organism):
        true, score = _score(pool, source), _score(pool, vague)
        assert score.f1 is not None
        assert score.auprc is not None
        assert score.f1_interval is not None
        assert true.f1_interval is not None
        assert score.f1 < 0.1
        assert score.auprc < 0.1
        assert score.f1_interval[1] < true.f1_interval[0]
        recall = [item.verdict for item in score.judged if item.truth]
        assert set(recall) == {1.0}


def test_a_label_with_the_wording_of_one_example_is_far_below_the_true_one(
    organism: Organism,
) -> None:
    """The wording of an example that the labeler saw, and the judge did not."""
    for pool, source in _pure(organism):
        examples = organism.store.examples(pool.direction, pole=pool.pole, role=ANY_ROLE)
        explained, _ = split_examples(examples)
        text = explained[0].window.text
        assert explained[0].window.doc_id not in {i.window.doc_id for i in pool.items["pole"]}
        run = re.search(r"[a-z]+(?: [a-z]+){4}", text)
        assert run
        score, true = (_score(pool, said, EVERY) for said in (run.group(), source))
        _is_far_below(score, true)


def test_nothing_that_a_labeler_may_see_is_judged(organism: Organism) -> None:
    held_out = {window.doc_id for window in organism.store.held_out()}
    for pool in organism.pools:
        examples = [
            example
            for example in organism.store.examples(pool.direction, role=ANY_ROLE)
            if example.window.doc_id not in held_out
        ]
        seen: set[int] = set()
        for pole in ("max", "min"):
            explained, _ = split_examples([item for item in examples if item.pole == pole])
            seen |= {item.window.doc_id for item in explained}
        judged = {item.window.doc_id for item in pool.take(dict.fromkeys(STRATA, 10**6))}
        assert judged
        assert not judged & seen
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
        assert 0.001 < pool.base_rate < 0.05
