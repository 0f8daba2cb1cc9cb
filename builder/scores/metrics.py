"""How good are verdicts, were all documents judged? F1 and average precision of the population.

Texts are drawn by stratum (the pole, the other pole, the middle, random), and each stratum stands
for a share of all documents. A text weighs as much as its share of the stratum, so that one false
alarm among forty random texts counts as what it is: two documents in a hundred, which are more than
all positive ones. Of the usual measures F1 and average precision are two that fall both when yes is
missing and when yes is said too often (Oikarinen, Yan and Weng 2025, arXiv 2506.05774); recall,
balanced accuracy and AUC do not.

*Intervals* are of a Bayesian bootstrap within strata (Rubin 1981): each text gets a random weight,
Dirichlet(1, ..., 1). A bootstrap of either kind never draws what it has not seen, so with no false
alarm among forty it would be sure that there is none. So the positive texts, and the negative ones
together, each get two made-up texts of weight 1/2, one with the verdict 1 and one with 0; those of
the negative ones are split over their strata by share. In one stratum the share of yes then follows
Beta(yes + 1/2, no + 1/2), the Jeffreys interval (Brown, Cai and DasGupta 2001, who also widen it to
hold the estimate where all or none are yes, as is done here). Two halves in every negative stratum
would add up to a belief in false alarms that hides good labels. But where false alarms are rare and
positives rarer, even the belief in half a one weighs so much that nearly all draws lie below the F1
of a label without any. So F1's upper end is at least the F1 that the false alarms seen would give
with recall at the upper end of its own Jeffreys interval.

Measured by simulation, 500 or 1000 samples each, positives of 0.0002, 0.005, 0.02 or 0.1 of all
documents, recall 0.5 or 0.9, false alarms in 0, 0.2% or 2% (5% of the ``middle``), 5 to 10 positive
and 20 to 210 negative texts: the intervals hold the true F1 in 92.3% to 99.5% of samples. They lie
below it in at most 7.7% (a false alarm was seen, by chance, that is rarer than the texts can show)
and above it in at most 3.2%.

What an interval cannot mend is the estimate itself. Where positives are far rarer than one in the
number of texts judged, a single false alarm, seen or not, makes F1 near 0 or near 1: with 0.0002
positives, recall 0.9 and false alarms in 2% of all, the true F1 is 0.018, and the estimate from 5
positive and 20 negative texts is 0.89 or more half of the time.

*Chance* is F1 with the same verdicts shuffled over the same texts.

Everything follows from how often each verdict was given in each stratum, so a thousand texts take
as long as fifty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from builder.records import STRATA, Stratum

#: Random weights, and shuffles, that an interval is taken from.
DRAWS = 1000
#: Verdicts from here on mean yes.
YES = 0.5
#: The share of draws that an interval leaves out on each side.
_TAIL = 2.5
#: Weight of each made-up text, see above.
_SMOOTHING = 0.5

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """How often each verdict was given in each stratum, and what the strata stand for.

    ``values`` [v] are the distinct verdicts, descending; ``counts`` [s, v]; ``shares`` [s] of all
    documents; ``truth`` [s].
    """

    values: Floats
    counts: Ints
    shares: Floats
    truth: npt.NDArray[np.bool_]

    @property
    def weights(self) -> Floats:
        """[s, v], the share of documents that each cell stands for."""
        found: Floats = self.counts / self.counts.sum(axis=1, keepdims=True) * self.shares[:, None]
        return found


@dataclass(frozen=True, slots=True)
class Measures:
    """F1 and average precision with 95% intervals, and the bounds of F1 by chance."""

    f1: float
    auprc: float
    f1_interval: Interval
    auprc_interval: Interval
    chance: Interval


def table_of(
    strata: Sequence[Stratum], verdicts: Sequence[float | None], shares: Mapping[Stratum, float]
) -> Table | None:
    """The verdicts that were given, by stratum; None unless positives and negatives have some.

    ``shares`` are of all documents, by stratum. The share of a negative stratum without a verdict
    is taken over by the other negative ones, in proportion, so that positives stay as rare as they
    are.
    """
    given = [(s, v) for s, v in zip(strata, verdicts, strict=True) if v is not None]
    held = [s for s in STRATA if shares.get(s, 0.0) > 0 and any(t == s for t, _ in given)]
    negative = [s for s in held if s != "pole"]
    if "pole" not in held or not negative:
        return None
    values = np.unique([v for s, v in given if s in held])[::-1]
    counts = np.zeros((len(held), len(values)), dtype=np.int64)
    column = {float(value): at for at, value in enumerate(values)}
    for stratum, value in given:
        if stratum in held:
            counts[held.index(stratum), column[float(value)]] += 1
    lost = sum(share for s, share in shares.items() if s != "pole" and s not in held)
    stands = sum(shares[s] for s in negative)
    factors = [1.0 if s == "pole" else 1 + lost / stands for s in held]
    return Table(
        values=values.astype(np.float64),
        counts=counts,
        shares=np.array([shares[s] * f for s, f in zip(held, factors, strict=True)]),
        truth=np.array([s == "pole" for s in held]),
    )


def text_weights(
    strata: Sequence[Stratum], verdicts: Sequence[float | None], shares: Mapping[Stratum, float]
) -> list[float]:
    """The share of documents that each text stands for; 0 for one without a verdict."""
    table = table_of(strata, verdicts, shares)
    if table is None:
        return [0.0] * len(strata)
    given = [s for s, v in zip(strata, verdicts, strict=True) if v is not None]
    held = [s for s in STRATA if shares.get(s, 0.0) > 0 and s in given]
    each = {s: float(table.shares[at]) / given.count(s) for at, s in enumerate(held)}
    return [0.0 if v is None else each.get(s, 0.0) for s, v in zip(strata, verdicts, strict=True)]


def measure(table: Table, seed: int) -> Measures:
    """Everything that is said of a label's verdicts; the same for the same seed."""
    rng = np.random.default_rng(seed)
    weights = table.weights[None]
    best = float(f1(table.values, weights, table.truth)[0])
    precision = float(average_precision(table.values, weights, table.truth)[0])
    values, drawn = _bootstrap(table, rng)
    low, high = _interval(f1(values, drawn, table.truth), best)
    return Measures(
        f1=best,
        auprc=precision,
        f1_interval=(low, max(high, _f1_at_most(table))),
        auprc_interval=_interval(average_precision(values, drawn, table.truth), precision),
        chance=_interval(_shuffled_f1(table, rng)),
    )


def f1(values: Floats, weights: Floats, truth: npt.NDArray[np.bool_]) -> Floats:
    """F1 [n] of yes from YES on; weights [n, s, v], verdicts [v], truth [s]; 0 without any yes."""
    yes = weights[:, :, values >= YES].sum(axis=2)
    hits, alarms = yes[:, truth].sum(axis=1), yes[:, ~truth].sum(axis=1)
    positive = weights[:, truth].sum(axis=(1, 2))
    found: Floats = 2 * hits / (hits + alarms + positive)
    return found


def average_precision(values: Floats, weights: Floats, truth: npt.NDArray[np.bool_]) -> Floats:
    """Area [n] under the steps of precision over recall; arguments as of :func:`f1`.

    Texts with one verdict are passed at one step, so that their order cannot matter.
    """
    del values  # descending already: the order of the columns says all
    hits = weights[:, truth].sum(axis=1)
    passed = np.cumsum(weights.sum(axis=1), axis=1)
    found = np.cumsum(hits, axis=1)
    precision = np.divide(found, passed, out=np.zeros_like(found), where=passed > 0)
    total: Floats = (hits * precision).sum(axis=1) / hits.sum(axis=1)
    return total


def _bootstrap(table: Table, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Verdicts [v] and random weights [DRAWS, s, v] with the made-up texts among them."""
    values = np.union1d(table.values, [0.0, 1.0])[::-1]
    mass = np.zeros((len(table.shares), len(values)))
    mass[:, np.searchsorted(-values, -table.values)] = table.counts
    negative = np.where(table.truth, 0.0, table.shares)
    part = np.where(table.truth, 1.0, negative / negative.sum())
    mass[:, [0, -1]] += _SMOOTHING * part[:, None]
    drawn = rng.standard_gamma(mass, size=(DRAWS, *mass.shape))
    drawn *= (table.shares / drawn.sum(axis=2))[:, :, None]
    return values, drawn


def _f1_at_most(table: Table) -> float:
    """F1 with the false alarms that were seen, and as few misses as those seen allow for.

    The upper end of the Jeffreys interval of recall, 1 where nothing was missed.
    """
    positive = table.counts[table.truth][0]
    hits = int(positive[table.values >= YES].sum())
    missed = int(positive.sum()) - hits
    recall = betaincinv(hits + 0.5, missed + 0.5, 1 - _TAIL / 100) if missed else 1.0
    yes = table.weights[:, table.values >= YES].sum(axis=1)
    share, alarms = float(table.shares[table.truth].sum()), float(yes[~table.truth].sum())
    return float(2 * recall * share / (recall * share + alarms + share))


def _shuffled_f1(table: Table, rng: np.random.Generator) -> Floats:
    """F1 [DRAWS] with the verdicts dealt to the texts at random."""
    sizes = table.counts.sum(axis=1)
    said = int(table.counts[:, table.values >= YES].sum())
    yes = rng.multivariate_hypergeometric(sizes, said, size=DRAWS) / sizes * table.shares
    both = np.stack([yes, table.shares - yes], axis=2)
    return f1(np.array([1.0, 0.0]), both, table.truth)


def _interval(drawn: Floats, estimate: float | None = None) -> Interval:
    low, high = np.percentile(drawn, [_TAIL, 100 - _TAIL]).tolist()
    if estimate is None:
        return low, high
    return min(low, estimate), max(high, estimate)
