"""F1, average precision and their intervals are what their definitions say, by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from builder.records import Stratum
from builder.scores.metrics import (
    DRAWS,
    YES,
    Floats,
    Table,
    average_precision,
    f1,
    measure,
    table_of,
    text_weights,
)

SHARES: dict[Stratum, float] = {"pole": 0.01, "other": 0.02, "middle": 0.4, "random": 0.5}


def _strata(sizes: dict[Stratum, int]) -> list[Stratum]:
    return [stratum for stratum, n in sizes.items() for _ in range(n)]


def _random_verdicts(seed: int) -> tuple[list[Stratum], list[float | None]]:
    rng = np.random.default_rng(seed)
    strata = _strata({"pole": 10, "other": 7, "middle": 20, "random": 20})
    lean = np.array([0.3 if s == "pole" else -0.2 for s in strata])
    graded = np.clip(np.round(rng.random(len(strata)) + lean, 1), 0, 1)
    verdicts: list[float | None] = list(graded.tolist())
    for at in rng.integers(len(strata), size=4).tolist():
        verdicts[at] = None
    return strata, verdicts


def _table(strata: list[Stratum], verdicts: list[float | None]) -> Table:
    table = table_of(strata, verdicts, SHARES)
    assert table is not None
    return table


def _by_hand(truth: list[bool], verdicts: list[float], weights: list[float]) -> tuple[float, float]:
    """F1 and average precision, one text and one threshold at a time."""
    rows = list(zip(truth, verdicts, weights, strict=True))
    hits = sum(w for t, v, w in rows if t and v >= YES)
    alarms = sum(w for t, v, w in rows if not t and v >= YES)
    missed = sum(w for t, v, w in rows if t and v < YES)
    area, recall = 0.0, 0.0
    for threshold in sorted({v for _, v, _ in rows}, reverse=True):
        passed = [(t, w) for t, v, w in rows if v >= threshold]
        found = sum(w for t, w in passed if t)
        step = found / sum(w for t, _, w in rows if t)
        area += (step - recall) * found / sum(w for _, w in passed)
        recall = step
    return 2 * hits / (2 * hits + alarms + missed), area


@pytest.mark.parametrize("seed", range(8))
def test_f1_and_average_precision_equal_those_counted_text_by_text(seed: int) -> None:
    strata, verdicts = _random_verdicts(seed)
    weights = text_weights(strata, verdicts, SHARES)
    kept = [at for at, verdict in enumerate(verdicts) if verdict is not None]
    wanted = _by_hand(
        [strata[at] == "pole" for at in kept],
        [verdicts[at] or 0.0 for at in kept],
        [weights[at] for at in kept],
    )
    found = measure(_table(strata, verdicts), seed=0)
    assert (found.f1, found.auprc) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(4))
def test_neither_measure_depends_on_the_order_of_the_texts(seed: int) -> None:
    strata, verdicts = _random_verdicts(seed)
    order = np.random.default_rng(seed + 100).permutation(len(strata)).tolist()
    turned = measure(_table([strata[i] for i in order], [verdicts[i] for i in order]), seed=3)
    assert turned == measure(_table(strata, verdicts), seed=3)


def test_texts_of_a_stratum_share_its_part_and_those_without_a_verdict_have_none() -> None:
    strata: list[Stratum] = ["pole", "pole", "pole", "random", "random"]
    verdicts = [1.0, None, 0.0, 0.2, None]
    weights = text_weights(strata, verdicts, {"pole": 0.02, "random": 0.5})
    assert weights == pytest.approx([0.01, 0.0, 0.01, 0.5, 0.0])


def test_the_share_of_a_stratum_without_a_verdict_goes_to_the_other_negative_ones() -> None:
    strata: list[Stratum] = ["pole", "middle", "middle", "random"]
    verdicts = [1.0, None, None, 0.0]
    weights = text_weights(strata, verdicts, {"pole": 0.01, "middle": 0.4, "random": 0.5})
    assert weights == pytest.approx([0.01, 0.0, 0.0, 0.9])


@pytest.mark.parametrize("lost", ["pole", "random"])
def test_without_a_verdict_on_either_side_nothing_is_measured(lost: Stratum) -> None:
    strata: list[Stratum] = ["pole", "random"]
    verdicts = [None if stratum == lost else 1.0 for stratum in strata]
    assert table_of(strata, verdicts, SHARES) is None


def test_what_has_no_verdict_changes_neither_side() -> None:
    strata, verdicts = _random_verdicts(5)
    kept = [at for at, verdict in enumerate(verdicts) if verdict is not None]
    assert len(kept) < len(strata)
    whole = measure(_table(strata, verdicts), seed=1)
    assert whole == measure(_table([strata[i] for i in kept], [verdicts[i] for i in kept]), seed=1)


def _population(rng: np.random.Generator) -> tuple[list[Stratum], list[bool]]:
    """A thousand documents, each its own stratum's equal: 50 positive and 950 not."""
    strata = _strata({"pole": 50, "random": 950})
    rng.shuffle(strata)
    return strata, [stratum == "pole" for stratum in strata]


def _of_population(strata: list[Stratum], said: list[bool]) -> tuple[float, float, float]:
    """F1, average precision and recall."""
    verdicts: list[float | None] = [float(yes) for yes in said]
    table = table_of(strata, verdicts, {"pole": 0.05, "random": 0.95})
    assert table is not None
    recall = sum(yes for s, yes in zip(strata, said, strict=True) if s == "pole") / 50
    found = measure(table, seed=0)
    return found.f1, found.auprc, recall


def test_missing_labels_lower_f1_and_average_precision() -> None:
    # The check of Oikarinen, Yan and Weng 2025: half of the positive labels are taken away.
    rng = np.random.default_rng(0)
    strata, truth = _population(rng)
    fewer = [yes and rng.random() < 0.5 for yes in truth]
    assert _of_population(strata, truth) == (1.0, 1.0, 1.0)
    best_f1, area, recall = _of_population(strata, fewer)
    assert best_f1 < 0.8
    assert area < 0.7
    assert recall < 0.7


def test_extra_labels_lower_f1_and_average_precision_though_not_recall() -> None:
    # The same paper's other check: as many further documents are called positive.
    rng = np.random.default_rng(1)
    strata, truth = _population(rng)
    more = [yes or rng.random() < 50 / 950 for yes in truth]
    best_f1, area, recall = _of_population(strata, more)
    assert best_f1 < 0.8
    assert area < 0.7
    assert recall == 1.0


def test_chance_holds_the_f1_of_verdicts_that_were_shuffled() -> None:
    strata, verdicts = _random_verdicts(2)
    given = [(s, v) for s, v in zip(strata, verdicts, strict=True) if v is not None]
    low, high = measure(_table(strata, verdicts), seed=0).chance
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(600):
        order = rng.permutation(len(given))
        shuffled: list[float | None] = [given[at][1] for at in order]
        table = _table([s for s, _ in given], shuffled)
        drawn.append(float(f1(table.values, table.weights[None], table.truth)[0]))
    wanted = np.percentile(drawn, [2.5, 97.5])
    assert (low, high) == pytest.approx(wanted.tolist(), abs=0.01)


def test_one_who_says_yes_to_everything_is_at_chance() -> None:
    strata = _strata({"pole": 10, "random": 40})
    table = _table(strata, [1.0] * 50)
    found = measure(table, seed=0)
    low, high = found.chance
    assert low == pytest.approx(found.f1)
    assert high == pytest.approx(found.f1)


def test_no_false_alarm_among_forty_does_not_mean_there_is_none() -> None:
    strata = _strata({"pole": 10, "middle": 20, "random": 20})
    verdicts: list[float | None] = [float(stratum == "pole") for stratum in strata]
    found = measure(_table(strata, verdicts), seed=0)
    assert found.f1 == 1.0
    low, high = found.f1_interval
    assert low < 0.6
    assert high == 1.0
    assert found.auprc_interval[0] < 0.6


@pytest.mark.parametrize(("hits", "of"), [(9, 10), (4, 5), (20, 40), (0, 10)])
def test_f1_may_be_as_high_as_misses_alone_allow_for(hits: int, of: int) -> None:
    # One in 5000 is positive: half a made-up false alarm outweighs all of them.
    strata = _strata({"pole": of, "random": 40})
    verdicts: list[float | None] = [float(at < hits) for at in range(of + 40)]
    table = table_of(strata, verdicts, {"pole": 0.0002, "random": 0.9998})
    assert table is not None
    recall = stats.beta.ppf(0.975, hits + 0.5, of - hits + 0.5)
    assert measure(table, seed=0).f1_interval[1] == pytest.approx(2 * recall / (recall + 1))


def test_false_alarms_that_were_seen_bound_f1_from_above() -> None:
    strata = _strata({"pole": 10, "random": 40})
    verdicts: list[float | None] = [float(at < 14) for at in range(50)]
    table = table_of(strata, verdicts, {"pole": 0.001, "random": 0.999})
    assert table is not None
    assert measure(table, seed=0).f1_interval[1] < 0.1


@pytest.mark.parametrize(
    ("hit", "alarm", "base"),
    [
        (0.9, 0.01, 0.01),
        (0.5, 0.002, 0.005),
        (1.0, 0.0, 0.01),
        (0.3, 0.2, 0.05),
        # Misses without false alarms: hidden where only alarms that might be widen an interval.
        (0.9, 0.0, 0.0002),
        (0.9, 0.0, 0.005),
        (0.9, 0.002, 0.02),
        (0.5, 0.0, 0.0002),
    ],
)
def test_intervals_hold_the_true_f1_about_as_often_as_they_say(
    hit: float, alarm: float, base: float
) -> None:
    shares: dict[Stratum, float] = {
        "pole": base, "other": base, "middle": 0.4, "random": 0.6 - 2 * base
    }  # fmt: skip
    negative = 1 - base
    true = 2 * base * hit / (base * hit + negative * alarm + base)
    rng = np.random.default_rng(17)
    strata = _strata({"pole": 10, "other": 10, "middle": 20, "random": 20})
    rates = np.array([hit if s == "pole" else alarm for s in strata])
    held, above = 0, 0
    for seed in range(300):
        verdicts: list[float | None] = (rng.random(len(strata)) < rates).astype(float).tolist()
        table = table_of(strata, verdicts, shares)
        assert table is not None
        low, high = measure(table, seed).f1_interval
        held += low - 1e-9 <= true <= high + 1e-9
        above += low > true + 1e-9
    assert held >= 0.9 * 300
    assert above <= 0.05 * 300


def test_made_up_texts_follow_the_jeffreys_interval_of_one_stratum() -> None:
    # The same F1 by two Beta distributions: 10 of 10, and 0 of 20.
    table = Table(
        values=np.array([1.0, 0.0]),
        counts=np.array([[10, 0], [0, 20]]),
        shares=np.array([0.5, 0.5]),
        truth=np.array([True, False]),
    )
    rng = np.random.default_rng(0)
    alarms, hits = rng.beta(0.5, 20.5, 100_000), rng.beta(10.5, 0.5, 100_000)
    low = measure(table, seed=0).f1_interval[0]
    wanted = np.quantile(2 * hits / (hits + alarms + 1), 0.025)
    assert low == pytest.approx(wanted, abs=0.02)


def test_ties_are_passed_at_one_step() -> None:
    values: Floats = np.array([1.0])
    weights: Floats = np.array([[[0.1], [0.9]]])
    assert average_precision(values, weights, np.array([True, False])) == pytest.approx([0.1])


def test_measures_are_the_same_for_the_same_seed() -> None:
    strata, verdicts = _random_verdicts(7)
    assert DRAWS >= 500
    assert measure(_table(strata, verdicts), 11) == measure(_table(strata, verdicts), 11)
    assert measure(_table(strata, verdicts), 11) != measure(_table(strata, verdicts), 12)
