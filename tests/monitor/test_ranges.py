"""Ranges are order statistics of conversations, and their bound holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import MonitorError
from builder.monitor.ranges import (
    Calibration,
    Extents,
    Ranges,
    extents,
    observed_rate,
)
from builder.records import ROLES
from tests import micro
from tests.monitor.making import pieces, trace, tracer

USER, ASSISTANT = ROLES.index("user"), ROLES.index("assistant")


def made_up(rng: np.random.Generator, n: int, width: int) -> list[Extents]:
    """Extents of conversations in which each role is missing at times."""
    found = []
    for _ in range(n):
        low = rng.normal(size=(len(ROLES), width)).astype(np.float32)
        high = low + rng.exponential(size=low.shape).astype(np.float32)
        missing = rng.random(len(ROLES)) < 0.3
        low[missing], high[missing] = np.inf, -np.inf
        found.append(Extents(low, high))
    return found


def calibrated(found: list[Extents], **options: Any) -> Ranges:
    calibration = Calibration(found[0].lowest.shape[1], **options)
    for one in found:
        calibration.add(one)
    return calibration.ranges()


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 4), st.sampled_from([0, 3, 20])
)
@settings(max_examples=60, deadline=None)
def test_ranges_are_order_statistics_whatever_the_order(
    seed: int, n: int, width: int, percentile: int
) -> None:
    rng = np.random.default_rng(seed)
    found = made_up(rng, n, width)
    present = np.asarray([np.isfinite(one.highest).any(axis=1) for one in found])
    if not present.any():
        with pytest.raises(MonitorError, match="no conversation"):
            calibrated(found, percentile=percentile)
        return
    ranges = calibrated(found, percentile=percentile, most=n)
    again = calibrated([found[at] for at in rng.permutation(n)], percentile=percentile, most=n + 7)
    for role in range(len(ROLES)):
        own = [one for one, has in zip(found, present[:, role], strict=True) if has]
        assert ranges.conversations[role] == len(own)
        k = math.floor(percentile / 100 * len(own))
        assert ranges.beyond[role] == k
        if not own:
            assert np.isnan(ranges.lowest[role]).all()
            continue
        for column in range(width):
            highs = sorted((one.highest[role, column] for one in own), reverse=True)
            lows = sorted(one.lowest[role, column] for one in own)
            assert ranges.highest[role, column] == highs[k]
            assert ranges.lowest[role, column] == lows[k]
    np.testing.assert_array_equal(ranges.lowest, again.lowest)
    np.testing.assert_array_equal(ranges.highest, again.highest)


@pytest.mark.parametrize("percentile", [0.0, 2.0])
def test_no_more_conversations_go_beyond_than_the_bound_says(percentile: float) -> None:
    """Over many calibrations, of values whose tails are heavy and that move together."""
    rng = np.random.default_rng(5)
    n, width, times = 150, 3, 3000
    flagged = 0
    for _ in range(times):
        common = rng.standard_cauchy((n + 1, 1))
        values = (common + 0.3 * rng.standard_cauchy((n + 1, width))).astype(np.float32)
        low = np.full((len(ROLES), width), np.inf, dtype=np.float32)
        found = []
        for row in values:
            one = Extents(low.copy(), -low)
            one.lowest[USER] = one.highest[USER] = row
            found.append(one)
        ranges = calibrated(found[:-1], percentile=percentile)
        new = found[-1].highest[USER]
        flagged += bool(((new > ranges.highest[USER]) | (new < ranges.lowest[USER])).any())
    bound = ranges.bound()
    assert bound == pytest.approx(2 * width * (math.floor(percentile / 100 * n) + 1) / (n + 1))
    rate = observed_rate(flagged, times)
    assert rate.low <= bound
    assert rate.share > bound / 20, "and not for want of any"


def test_the_bound_adds_up_the_roles_and_is_one_where_nothing_is_known() -> None:
    conversations = np.zeros(len(ROLES), dtype=np.int64)
    conversations[USER], conversations[ASSISTANT] = 999, 499
    ends = np.zeros((len(ROLES), 5), dtype=np.float32)
    ranges = Ranges(ends, ends, conversations, np.zeros_like(conversations))
    assert ranges.bound(["user"]) == pytest.approx(10 / 1000)
    assert ranges.bound() == pytest.approx(10 / 1000 + 10 / 500)
    assert ranges.bound(["user", "system"]) == 1.0
    wide = np.zeros((len(ROLES), 5000), dtype=np.float32)
    assert Ranges(wide, wide, conversations, np.zeros_like(conversations)).bound() == 1.0


@pytest.mark.parametrize(
    ("flagged", "n", "low", "high"),
    [
        # No success in n: 1 - (tail)^(1/n); 0 of 1000 is the "at most 0.37%" of the tables.
        (0, 1000, 0.0, 1 - 0.025 ** (1 / 1000)),
        (1000, 1000, 0.025 ** (1 / 1000), 1.0),
        (0, 0, 0.0, 1.0),
        # Tabled values of Clopper and Pearson's interval.
        (1, 10, 0.002529, 0.445016),
        (5, 10, 0.187086, 0.812914),
    ],
)
def test_rates_have_exact_intervals(flagged: int, n: int, low: float, high: float) -> None:
    rate = observed_rate(flagged, n)
    assert rate.low == pytest.approx(low, abs=1e-6)
    assert rate.high == pytest.approx(high, abs=1e-6)
    assert math.isnan(rate.share) if n == 0 else rate.low <= rate.share <= rate.high


def test_what_is_no_rate_or_calibration_is_refused() -> None:
    for flagged, n in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="no rate"):
            observed_rate(flagged, n)
    for options, said in (({"percentile": 50}, "percentile"), ({"most": 0}, "room")):
        with pytest.raises(MonitorError, match=said):
            Calibration(3, **options)
    calibration = Calibration(1, most=1)
    found = made_up(np.random.default_rng(0), 2, 1)
    calibration.add(found[0])
    with pytest.raises(MonitorError, match="more came"):
        calibration.add(found[1])
    assert calibration.conversations == 1


def test_extents_leave_out_what_does_not_count_and_join_pieces() -> None:
    nan = np.nan
    one = trace("uua", [[0.1, 0.5], [0.9, -0.2], [0.3, 0.3]], counts=[[1, 1], [0, 1], [1, 1]])
    other = trace("us", [[-0.4, 0.2], [0.7, 0.7]], counts=[[1, 1], [0, 0]], first=3)
    found = extents([one, other], 2)
    np.testing.assert_array_equal(found.lowest[USER], np.asarray([-0.4, -0.2], "f4"))
    np.testing.assert_array_equal(found.highest[USER], np.asarray([0.1, 0.5], "f4"))
    np.testing.assert_array_equal(found.highest[ASSISTANT], np.asarray([0.3, 0.3], "f4"))
    assert (found.highest[ROLES.index("system")] == -np.inf).all()
    calibration = Calibration(2)
    calibration.add(found)
    ranges = calibration.ranges()
    assert ranges.conversations[USER] == 1
    assert ranges.conversations[ROLES.index("system")] == 0
    np.testing.assert_array_equal(ranges.highest[ROLES.index("system")], [nan, nan])


def test_ranges_of_a_model_hold_all_of_its_calibration() -> None:
    documents = micro.documents(30, seed=8)
    calibration = Calibration(len(micro.make_directions().directions))
    found = [extents([one], 12) for one in tracer().traces(pieces(documents))]
    for one in found:
        calibration.add(one)
    ranges = calibration.ranges()
    for one in found:
        here = np.isfinite(one.highest)
        assert (one.highest[here] <= ranges.highest[here]).all()
        assert (one.lowest[here] >= ranges.lowest[here]).all()
