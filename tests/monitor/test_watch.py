"""An anomaly names the direction, the token and by how much, as a loop over all of them does."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import MonitorError
from builder.monitor.ranges import Calibration, Ranges, extents
from builder.monitor.traces import Trace
from builder.monitor.watch import Labels, RangeMonitor
from builder.records import ROLES, Anomaly
from tests import micro
from tests.monitor.making import pieces, trace, tracer

NAMES = ("L00.o_proj.u00", "L01.down_proj.u03")
LABELS: Labels = {(NAMES[0], "max"): "about tides"}


def ranges(low: float = -0.2, high: float = 0.3, width: int = 2) -> Ranges:
    """The same range everywhere, for users and assistants only."""
    conversations = np.zeros(len(ROLES), dtype=np.int64)
    conversations[:2] = 100
    ends = np.full((len(ROLES), width), np.nan, dtype=np.float32)
    lowest, highest = ends.copy(), ends.copy()
    lowest[:2], highest[:2] = low, high
    return Ranges(lowest, highest, conversations, np.zeros_like(conversations))


def by_loop(monitor: RangeMonitor, traces: list[Trace]) -> set[tuple[object, ...]]:
    """(direction, pole, role, token, tokens beyond) of everything beyond the ranges."""
    found: dict[tuple[str, str, str], tuple[float, int, int]] = {}
    for one in traces:
        for at, role in enumerate(one.piece.roles.tolist()):
            for column, name in enumerate(monitor.directions):
                if not one.counts[at, column]:
                    continue
                value = one.activations[at, column]
                high, low = (
                    monitor.ranges.highest[role, column], monitor.ranges.lowest[role, column]
                )  # fmt: skip
                for pole, by in (("max", value - high), ("min", low - value)):
                    if not by > monitor.margin:
                        continue
                    key = (name, pole, ROLES[role])
                    best, token, n = found.get(key, (-np.inf, -1, 0))
                    if by > best:
                        best, token = by, one.piece.first + at
                    found[key] = (best, token, n + 1)
    return {(*key, token, n) for key, (_, token, n) in found.items()}


def told(found: list[Anomaly]) -> set[tuple[object, ...]]:
    return {(one.direction, one.pole, one.role, one.token, one.tokens) for one in found}


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([0.0, 0.01, 0.3]))
@settings(max_examples=80, deadline=None)
def test_anomalies_are_those_of_a_loop(seed: int, n: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    traces, first = [], 0
    for _ in range(n):
        roles = "".join(rng.choice(list("uas"), int(rng.integers(1, 7))))
        values = rng.normal(0, 0.4, (len(roles), 2)).clip(-1, 1)
        traces.append(trace(roles, values, counts=rng.random(values.shape) < 0.8, first=first))
        first += len(roles)
    monitor = RangeMonitor(NAMES, ranges(), margin=margin)
    found = monitor.observe(traces)
    assert told(found) == by_loop(monitor, traces)
    assert len(found) == len(told(found))
    assert [one.by for one in found] == sorted((one.by for one in found), reverse=True)
    for one in found:
        assert one.by == pytest.approx(
            one.value - one.high if one.pole == "max" else one.low - one.value, abs=1e-6
        )
    assert "system" not in {one.role for one in found}
    here = any((one.piece.roles == ROLES.index("system")).any() for one in traces)
    assert monitor.unknown_roles(traces) == (("system",) if here else ())


def test_an_anomaly_says_where_and_what() -> None:
    monitor = RangeMonitor(NAMES, ranges(), labels=LABELS)
    words = ["As ", "the ", "heron ", "flies"]
    values = [[0.1, 0.0], [0.35, 0.0], [0.9, 0.0], [0.2, -0.5]]
    (first, second) = monitor.observe([trace("uuua", values, words=words, first=10)])
    assert dataclasses.replace(first, value=0, low=0, high=0, by=0) == Anomaly(
        NAMES[0], "max", "user", 12, "heron ", 0, 0, 0, 0, 2, "about tides"
    )
    assert (first.value, first.low, first.high) == pytest.approx((0.9, -0.2, 0.3))
    assert first.by == pytest.approx(0.6)
    assert (second.direction, second.pole, second.role) == (NAMES[1], "min", "assistant")
    assert (second.token, second.text, second.label) == (13, "flies", None)


def test_nothing_within_the_margin_is_an_anomaly() -> None:
    monitor = RangeMonitor(NAMES, ranges(), margin=0.01)
    assert monitor.observe([trace("uu", [[0.309, -0.209], [0.3, -0.2]])]) == []
    assert len(monitor.observe([trace("uu", [[0.311, -0.211], [0.3, -0.2]])])) == 2


def test_what_was_seen_is_learnt_within_the_cap_and_reported_first() -> None:
    monitor = RangeMonitor(NAMES, ranges(), margin=0.0, cap=0.05)
    strange = [trace("u", [[0.31, -0.9]])]
    assert len(monitor.observe(strange, learn=True)) == 2
    user, assistant = ROLES.index("user"), ROLES.index("assistant")
    np.testing.assert_allclose(monitor.ranges.highest[user], [0.31, 0.3], atol=1e-6)
    np.testing.assert_allclose(monitor.ranges.lowest[user], [-0.2, -0.25], atol=1e-6)
    np.testing.assert_allclose(monitor.ranges.highest[assistant], [0.3, 0.3])
    assert np.isnan(monitor.ranges.highest[ROLES.index("system")]).all()
    assert monitor.learned == 1
    # Within reach of the cap it takes as many as it takes; then it is known.
    again = [len(monitor.observe(strange, learn=True)) for _ in range(20)]
    assert again[0] == 1
    assert again[-1] == 0
    assert monitor.learned == 14
    monitor.observe([trace("u", [[0.0, 0.0]])], learn=True)
    assert monitor.learned == 14, "nothing moved"


def test_calibration_traffic_itself_is_never_anomalous() -> None:
    watching = tracer()
    traces = list(watching.traces(pieces(micro.documents(40, seed=1))))
    names = [direction.id for direction in micro.make_directions().directions]
    calibration = Calibration(len(names))
    for one in traces:
        calibration.add(extents([one], len(names)))
    monitor = RangeMonitor(names, calibration.ranges(), margin=1e-4)
    assert not [one for one in traces if monitor.observe([one])]
    strangers = watching.traces(pieces(micro.documents(40, seed=2)))
    assert [one for one in strangers if monitor.observe([one])], "so few cannot cover all"


def test_what_does_not_fit_is_refused() -> None:
    wrong: tuple[tuple[tuple[str, ...], dict[str, Any], str], ...] = (
        (NAMES[:1], {}, "1 directions, but ranges of 2"),
        (NAMES, {"margin": -0.1}, "margin"),
        (NAMES, {"cap": 3.0}, "cap"),
    )
    for directions, options, said in wrong:
        with pytest.raises(MonitorError, match=said):
            RangeMonitor(directions, ranges(), **options)
