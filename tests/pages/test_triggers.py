"""A pole looks like a trigger when its examples lie far out and agree, and not otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builder.pages.direction_view import PeakStats
from builder.pages.lists_view import trigger_list
from builder.pages.overview import overview
from builder.pages.peaks import PolePeaks
from builder.pages.triggers import best_of, normal_reach, of_directions, trigger_likeness
from builder.pages.views import read_run
from builder.records import Pole
from builder.store import Bulk, RunStore
from tests.pages.conftest import SMALL

BULK = Bulk(n=1_000_000, mean=0.01, std=0.05, beyond=1e-3, low=-0.14, high=0.16)


def peaks(
    middle: float, share: float, source: float = 0.1, corpus: float | None = 0.1
) -> PolePeaks:
    return PolePeaks(PeakStats("tide", share, 20, "chat", source, corpus), middle)


def test_the_normal_reach_is_that_of_normal_values() -> None:
    rng = np.random.default_rng(3)
    draws = np.sort(rng.standard_normal((200, 20_000)), axis=1)
    edges, middles = np.quantile(draws, 0.99, axis=1), np.median(draws[:, -20:], axis=1)
    assert normal_reach(20_000, 20, 0.01) == pytest.approx((middles - edges).mean(), abs=0.02)


def test_likeness_is_what_goes_beyond_chance_times_the_share_that_agrees() -> None:
    chance = normal_reach(BULK.n, 20, BULK.beyond)
    found = trigger_likeness(
        {
            ("d", "max"): peaks(0.16 + 0.05 * (chance + 2), 0.5),
            ("d", "min"): peaks(-0.14 - 0.05 * (chance + 2), 1.0),
            ("e", "max"): peaks(0.16 + 0.05 * (chance - 0.5), 1.0),
        },
        {"d": BULK, "e": BULK},
    )
    assert found["d", "max"].value == pytest.approx(1.0)
    assert found["d", "min"].value == pytest.approx(2.0)
    assert found["e", "max"].value == 0.0
    assert best_of(found, "d") == pytest.approx(2.0)
    assert best_of(found, "f") is None
    assert of_directions(found, ["e", "d", "f"]) == pytest.approx([0.0, 1.0, 2.0])


def test_a_source_counts_beyond_its_share_of_the_corpus_alone() -> None:
    far = 0.16 + 0.05 * (normal_reach(BULK.n, 20, BULK.beyond) + 1)
    cases = {
        "rare source": (peaks(far, 0.2, source=0.9, corpus=0.1), 0.8, False),
        "whole corpus": (peaks(far, 0.2, source=1.0, corpus=1.0), 0.2, True),
        "corpus unknown": (peaks(far, 0.2, source=1.0, corpus=None), 0.2, True),
        "token": (peaks(far, 0.95, source=0.9, corpus=0.1), 0.95, True),
    }
    for name, (held, share, on_token) in cases.items():
        found = trigger_likeness({("d", "max"): held}, {"d": BULK})["d", "max"]
        assert found.value == pytest.approx(share), name
        assert found.on_token == on_token, name


def test_poles_whose_tokens_do_not_vary_or_are_unknown_are_left_out() -> None:
    still = Bulk(n=10, mean=0.1, std=0.0, beyond=0.01, low=0.1, high=0.1)
    held: dict[tuple[str, Pole], PolePeaks] = {
        ("d", "max"): peaks(0.5, 1.0),
        ("e", "max"): peaks(0.5, 1.0),
    }
    assert trigger_likeness(held, {"d": still}) == {}


def test_the_planted_trigger_of_a_run_comes_first_and_beyond_every_control(
    run_folders: list[Path],
) -> None:
    for folder in run_folders:
        with RunStore(folder / "run.duckdb") as store:
            run = read_run(folder, store)
            listed = trigger_list(run, overview(run, store, SMALL.examples))
        assert listed.rows[0].beats == 1.0
        assert listed.most is not None
        assert listed.rows[0].trigger.value > 2 * listed.most
        values = [row.trigger.value for row in listed.rows]
        assert values == sorted(values, reverse=True)
        assert listed.beyond >= 1
