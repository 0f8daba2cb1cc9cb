"""Sources are called enriched when chance and the lengths of their documents do not explain it."""

from collections.abc import Sequence

import numpy as np
import pytest

from builder.activations.shard_files import length_class
from builder.store.tails import (
    _p_values,
    _p_values_of_shares,
    _q_values,
    greatest_shares,
)

N, TAIL, TESTS = 20_000, 100, 40


def enriched_runs(
    shares: Sequence[float], tokens: Sequence[int], alike: float, *, planted: float = 0.0
) -> list[set[int]]:
    """Per made-up scan, the sources that it calls enriched at some of its directions.

    The extreme of a document is the greatest of as many normal values as it has tokens, and
    ``alike`` times one more that they share. ``planted`` is added in documents of the last source.
    """
    from scipy.stats import norm

    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        source = rng.choice(len(shares), size=N, p=shares)
        length = np.asarray(tokens)[source]
        documents = np.bincount(source, minlength=len(shares))
        names = [str(at) for at in range(len(shares))]
        greatest = greatest_shares(
            dict(zip(names, documents.tolist(), strict=True)),
            {name: {length_class(n): 1} for name, n in zip(names, tokens, strict=True)},
        )
        n = np.zeros((TESTS, len(shares)), dtype=np.int64)
        for test in range(TESTS):
            most = norm.isf(-np.expm1(np.log(rng.random(N)) / length))
            extreme = most + alike * rng.standard_normal(N)
            extreme += planted * (source == len(shares) - 1)
            tail = np.argpartition(-extreme, TAIL)[:TAIL]
            n[test] = np.bincount(source[tail], minlength=len(shares))
        flat, size = n.ravel(), np.full(n.size, TAIL)
        p_values = np.maximum(
            _p_values(flat, size, np.tile(documents, TESTS), N),
            _p_values_of_shares(flat, size, np.tile([greatest[name] for name in names], TESTS)),
        )
        q_values = _q_values(p_values, n.size).reshape(n.shape)
        found.append(set(np.flatnonzero((q_values < 0.05).any(axis=0)).tolist()))
    return found


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    ("shares", "tokens"),
    [
        ((0.7, 0.25, 0.05), (10, 200, 4000)),
        ((0.6, 0.3, 0.1), (20, 100, 1000)),
        ((0.5, 0.5), (1000, 90)),
        ((0.4, 0.3, 0.2, 0.1), (30, 45, 70, 110)),
    ],
)
def test_lengths_alone_enrich_no_source(
    shares: Sequence[float], tokens: Sequence[int], alike: float
) -> None:
    # At a false discovery rate of 5%, one run in twenty may find something.
    assert sum(map(bool, enriched_runs(shares, tokens, alike))) <= 3


@pytest.mark.parametrize("tokens", [(300, 60), (60, 300), (100, 100)])
def test_a_rare_source_at_the_pole_is_enriched_whatever_its_length(
    tokens: Sequence[int],
) -> None:
    found = enriched_runs((0.99, 0.01), tokens, 1.0, planted=3.0)
    assert found == [{1}] * len(found)


def test_the_greatest_share_is_that_of_the_worst_rule() -> None:
    documents = {"short": 700, "middle": 250, "long": 50}
    lengths = {"short": {length_class(8): 7}, "middle": {length_class(128): 1},
               "long": {length_class(4096): 3}}  # fmt: skip
    found = greatest_shares(documents, lengths)
    assert found["short"] == pytest.approx(0.7)
    reach = [700 * 8, 250 * 128, 50 * 128]
    assert found["middle"] == pytest.approx(reach[1] / sum(reach))
    reach = [700 * 8, 250 * 128, 50 * 4096]
    assert found["long"] == pytest.approx(reach[2] / sum(reach))


def test_copies_do_not_change_the_greatest_share() -> None:
    # Lengths are counted of distinct documents; shares follow the number of those alone.
    one = greatest_shares({"a": 30, "b": 70}, {"a": {8: 30}, "b": {20: 70}})
    many = greatest_shares({"a": 30, "b": 70}, {"a": {8: 30}, "b": {20: 7000}})
    assert one == pytest.approx(many)
