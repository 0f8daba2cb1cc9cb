"""Is something more frequent here than there, beyond chance, and by how much? Three statistics."""

from __future__ import annotations

import math
from functools import lru_cache


@lru_cache(maxsize=65536)
def fisher(count: int, n: int, other: int, n_other: int) -> float:
    """P-value of Fisher's exact test that ``count`` of ``n`` is more than ``other`` of ``n_other``.

    One-sided: the chance of ``count`` or more among ``n`` drawn from the ``n + n_other`` of which
    ``count + other`` have the property. Exact integers throughout.
    """
    having = count + other
    ways = sum(
        math.comb(having, seen) * math.comb(n + n_other - having, n - seen)
        for seen in range(count, min(n, having) + 1)
    )
    return ways / math.comb(n + n_other, n)


@lru_cache(maxsize=65536)
def binomial_tail(count: int, n: int, rate: float) -> float:
    """The chance of ``count`` or more successes in ``n`` trials of probability ``rate``."""
    return math.fsum(
        math.comb(n, seen) * rate**seen * (1 - rate) ** (n - seen) for seen in range(count, n + 1)
    )


def log_odds(weight: float, n: int, other: float, n_other: int, prior: float) -> float:
    """Difference of log-odds of two shares in standard deviations, shrunk by a Dirichlet prior.

    ``weight`` of ``n`` against ``other`` of ``n_other``; the prior weighs as much as ``prior``
    documents that have the pooled share. Monroe, Colaresi and Quinn 2008, equations 16, 20, 22,
    in their two-outcome form (a document has the term or not).
    """
    pooled = (weight + other + 0.5) / (n + n_other + 1.0)
    a, b = prior * pooled, prior * (1 - pooled)
    here = math.log((weight + a) / (n - weight + b))
    there = math.log((other + a) / (n_other - other + b))
    return (here - there) / math.sqrt(1 / (weight + a) + 1 / (other + a))
