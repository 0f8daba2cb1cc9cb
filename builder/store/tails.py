"""Where do the most extreme documents come from, and is that more than chance?

Of each direction and pole the ``scan.tail`` most extreme documents, one of each cluster, are held
against the corpus: a source is enriched if it holds more of the tail than chance and the lengths of
documents explain. The more tokens a document has, the farther its extreme lies out by chance; how
much more often that puts it into the tail depends on how alike its tokens are: from not at all to
in proportion to them. So the source is given the greatest share that any such rule gives it. Among
rules by which a document of L tokens is in the tail as g(L), with g nowhere falling and g(L) / L
nowhere rising, that is g(L) = min(L, c) for some c: all others as short or long as they may be.
One-sided tests: hypergeometric against the share of distinct documents, binomial against the
greatest share over c; the larger p counts. As there is a test for every direction, pole and source,
q-values bound the share of false finds among those called enriched (Benjamini & Hochberg 1995);
sources that no tail holds count as tests, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.activations.shard_files import CLASSES_AN_OCTAVE
from builder.records import POLES, ROUNDING
from builder.store.schema import insert_table
from builder.store.winners import Contest


def tail_contest(tail: int) -> Contest:
    """The contest for the tails of every direction and pole, into the table ``tail``.

    Documents that begin alike have values that are the same but for rounding. Values closer than
    ROUNDING to the next are taken for one, and the lowest document ids among them come first. So
    parts merge to the whole unless values just that far apart are joined by one of a later part,
    which at the end of a tail may put one document in the place of another equally far out.
    """
    groups = "direction, pole"
    keep = f"""
        one_each AS (
            SELECT * FROM rivals QUALIFY row_number() OVER (
                PARTITION BY {groups}, cluster ORDER BY doc_id) = 1
        ), steps AS (
            SELECT *, extreme - lag(extreme, 1, extreme) OVER (
                PARTITION BY {groups} ORDER BY extreme) > {ROUNDING} AS is_step
            FROM one_each
        ), level AS (
            SELECT *, sum(is_step::INTEGER) OVER (
                PARTITION BY {groups} ORDER BY extreme) AS level
            FROM steps
        ), ranked AS (
            SELECT *, row_number() OVER (PARTITION BY {groups} ORDER BY level, doc_id) AS rank
            FROM level
        )
        SELECT * EXCLUDE (extreme, is_step, level) FROM ranked WHERE rank <= {tail}
    """
    return Contest("tail.parquet", "tail", groups, "source::VARCHAR AS source", keep, tail)


def insert_sources(
    connection: duckdb.DuckDBPyConnection,
    n_directions: int,
    distinct: Mapping[str, int],
    lengths: Mapping[str, Mapping[int, int]],
) -> None:
    """Fills ``sources`` from ``tail``.

    ``distinct`` documents are by source; ``lengths`` are, too: how many of the distinct documents
    are in each class of :func:`builder.activations.shard_files.length_class`.
    """
    found = connection.sql(
        "SELECT direction, pole, source, count(*) AS n, "
        "sum(count(*)) OVER (PARTITION BY direction, pole)::BIGINT AS tail "
        "FROM tail GROUP BY direction, pole, source ORDER BY direction, pole, source"
    ).to_arrow_table()
    if not found.num_rows:
        return
    n, tail = (found[name].to_numpy().astype(np.int64) for name in ("n", "tail"))
    names = found["source"].to_pylist()
    # A source holds at least what one of its tails does, whatever was counted.
    held = dict(distinct)
    for name, own in zip(names, n.tolist(), strict=True):
        held[name] = max(held.get(name, 0), own)
    documents = np.asarray([held[name] for name in names], dtype=np.int64)
    everything = max(sum(held.values()), int(tail.max()))
    shares = greatest_shares(held, lengths)
    share = np.asarray([shares[name] for name in names])
    p_values = np.maximum(
        _p_values(n, tail, documents, everything), _p_values_of_shares(n, tail, share)
    )
    tests = max(len(n), n_directions * len(POLES) * len(held))
    table = {
        **{name: found[name] for name in ("direction", "pole", "source")},
        "n": n,
        "tail": tail,
        "documents": documents,
        "all_documents": np.full(len(n), everything),
        "p_value": p_values,
        "q_value": _q_values(p_values, tests),
    }
    insert_table(connection, "sources", pa.table(table))


Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def _p_values(n: Numbers, tail: Numbers, documents: Numbers, everything: int) -> Floats:
    """Chance of ``n`` or more of a source's ``documents`` among ``tail`` of ``everything``."""
    from scipy.stats import hypergeom  # takes a second to import

    # Many tests are the same.
    cases, where = np.unique(np.stack([n, tail, documents]), axis=1, return_inverse=True)
    values = hypergeom.sf(cases[0] - 1, everything, cases[2], cases[1])
    chances: Floats = np.clip(values, 0.0, 1.0)[where.ravel()]
    return chances


def _p_values_of_shares(n: Numbers, tail: Numbers, share: Floats) -> Floats:
    """Chance that ``n`` or more of ``tail`` documents are of a source, each by chance ``share``."""
    from scipy.stats import binom

    values: Floats = np.clip(binom.sf(n - 1, tail, share), 0.0, 1.0)
    return values


def greatest_shares(
    documents: Mapping[str, int], lengths: Mapping[str, Mapping[int, int]]
) -> dict[str, float]:
    """The greatest share of the tail that documents' lengths may give each source by chance.

    ``documents`` are the distinct ones by source, whose lengths are distributed as ``lengths`` are;
    a source without lengths is taken for one of single tokens.
    """
    names = sorted(documents)
    classes = sorted({0}.union(*(lengths.get(name, {}).keys() for name in names)))
    held = np.zeros((len(names), len(classes)))
    for row, name in enumerate(names):
        for found, n in (lengths.get(name) or {0: 1}).items():
            held[row, classes.index(found)] = n
    held *= np.asarray([documents[name] for name in names])[:, None] / held.sum(axis=1)[:, None]
    tokens = 2.0 ** (np.asarray(classes) / CLASSES_AN_OCTAVE)
    reach = held @ np.minimum(tokens[:, None], tokens[None, :])  # [source, c]
    shares = (reach / np.maximum(reach.sum(axis=0), 1e-300)).max(axis=1)
    return dict(zip(names, shares.tolist(), strict=True))


def _q_values(p_values: Floats, tests: int) -> Floats:
    """q-values of these tests of ``tests``; the others found nothing."""
    from scipy.stats import false_discovery_control

    padded = np.ones(tests)
    padded[: len(p_values)] = p_values
    values: Floats = false_discovery_control(padded)[: len(p_values)]
    return values
