"""What can be told of a text by its form alone? A classifier that never reads a word."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from builder.scores.items import Item
from builder.scores.judge import Text

_BINS = 6


def form_of(item: Item, text: Text) -> tuple[float, ...]:
    """Where it begins and ends, how long it is, its first character, and where its marks are."""
    marks, n = text.marked or (-1,), len(item.window.token_ends)
    start = item.window.text[:1]
    kind = 0 if start.isspace() else 1 if start.isupper() else 2 if start.islower() else 3
    runs = sum(b - a > 1 for a, b in itertools.pairwise(marks))
    return (
        float(item.window.start > 0), n, kind, marks[0], n - marks[-1], len(marks), runs,
        marks[len(marks) // 2] / n, float(n // 2 in marks), text.peak / n,
    )  # fmt: skip


def told_apart(forms: Sequence[tuple[float, ...]], truths: Sequence[bool]) -> float:
    """The area under the curve of a classifier made on every second text, on the others.

    It adds the log odds of every pair of features, each in at most _BINS bins; 0.5 is chance.
    """
    values, truth = np.asarray(forms, dtype=float), np.asarray(truths)
    binned = np.stack([_bins(column) for column in values.T], axis=1)
    made, tried = np.arange(len(truth)) % 2 == 0, np.arange(len(truth)) % 2 == 1
    odds = np.zeros(tried.sum())
    for one, other in itertools.combinations(range(binned.shape[1]), 2):
        cell = binned[:, one] * _BINS + binned[:, other]
        yes, no = (
            np.bincount(cell[made & (truth == side)], minlength=_BINS**2) + 1.0
            for side in (True, False)
        )
        odds += np.log(yes / yes.sum() / (no / no.sum()))[cell[tried]]
    return area(odds, truth[tried])


def area(values: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """How often a true one has a higher value than a false one; ties count half."""
    yes, no = values[truth], np.sort(values[~truth])
    below, upto = np.searchsorted(no, yes, "left"), np.searchsorted(no, yes, "right")
    return float((below + upto).mean() / 2 / len(no))


def _bins(column: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    edges = np.unique(np.quantile(column, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.searchsorted(edges, column, "left").astype(np.int64)
