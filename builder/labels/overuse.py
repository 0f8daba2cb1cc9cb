"""Is something more frequent here than there, beyond chance, and by how much? Three statistics."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]


def fisher(counts: npt.ArrayLike, n: int, others: npt.ArrayLike, n_other: int) -> Floats:
    """P-values of Fisher's exact test that each of ``counts`` of ``n`` is more than its other.

    One-sided: the chance of ``count`` or more among ``n`` drawn from the ``n + n_other`` of which
    ``count + other`` have the property. Counts are whole numbers, ``others`` of ``n_other``, in
    arrays of one shape.
    """
    having = np.asarray(counts) + np.asarray(others)
    found: Floats = stats.hypergeom.sf(np.asarray(counts) - 1, n + n_other, having, n)
    return found


def binomial_tail(counts: npt.ArrayLike, n: int, rates: npt.ArrayLike) -> Floats:
    """The chance of each count or more successes in ``n`` trials of its probability."""
    found: Floats = stats.binom.sf(np.asarray(counts) - 1, n, np.asarray(rates))
    return found


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
