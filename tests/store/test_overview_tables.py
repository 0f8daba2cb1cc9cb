"""What is asked of all directions at once is what asking them one by one, or counting, gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from builder.records import CONTENT_ROLES, HISTOGRAM_BINS, ROLES
from builder.store import LEAST_RARE, MOST_RARE, RARE, RunStore
from builder.store.schema import SCHEMA, SCHEMA_VERSION, connect, insert_table
from tests.pages.fixture import make_run

WIDTH = 2 / HISTOGRAM_BINS


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(
        tmp_path_factory.mktemp("overview") / "run",
        name="run", title="run", layers=2, ranks=2, documents=60, with_base=True,
    )  # fmt: skip
    return folder / "run.duckdb"


def write(path: Path, tokens: dict[tuple[int, str, int], np.ndarray]) -> None:
    """A database of two directions with these activations by direction, role and model."""
    with connect(path, read_only=False) as connection:
        connection.execute(SCHEMA)
        version = ("schema_version", json.dumps(SCHEMA_VERSION))
        connection.execute("INSERT INTO meta VALUES (?, ?)", version)
        for at in range(2):
            connection.execute(
                "INSERT INTO directions VALUES (?, ?, '', 0, 'o_proj', 'm', ?, 'delta', 1, 1, 0, "
                "[], [], 0.1, [], [], [])",
                [at, f"d{at}", at],
            )
        for (direction, role, model), values in tokens.items():
            counts, _ = np.histogram(values, bins=HISTOGRAM_BINS, range=(-1, 1))
            key = {"direction": [direction], "role": [ROLES.index(role)], "model": [model]}
            lists = pa.array([counts.tolist()], pa.list_(pa.int64()))
            insert_table(connection, "histograms", pa.table({**key, "counts": lists}))
            moments = {
                "n": [len(values)], "minimum": [values.min()], "maximum": [values.max()],
                "mean": [values.mean()], "std": [values.std()],
            }  # fmt: skip
            insert_table(connection, "ranges", pa.table({**key, **moments}))


def test_the_bulk_is_that_of_all_content_tokens_of_the_tuned_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    user, said = rng.normal(0.1, 0.05, 200_000), rng.normal(-0.1, 0.02, 100_000)
    path = tmp_path / "run.duckdb"
    write(path, {
        (0, "user", 0): user, (0, "assistant", 0): said,
        (0, "template", 0): np.full(500_000, 0.9), (0, "user", 1): user - 0.5,
        (1, "template", 0): user,
    })  # fmt: skip
    with RunStore(path) as store:
        bulks = store.bulks()
    # A direction without content tokens has no bulk.
    assert list(bulks) == ["d0"]
    every, bulk = np.concatenate([user, said]), bulks["d0"]
    assert bulk.n == len(every)
    assert bulk.mean == pytest.approx(every.mean())
    assert bulk.std == pytest.approx(every.std())
    assert bulk.beyond == LEAST_RARE / len(every)
    wanted = np.quantile(every, [bulk.beyond, 1 - bulk.beyond])
    assert [bulk.low, bulk.high] == pytest.approx(wanted, abs=WIDTH)


@pytest.mark.parametrize(("n", "beyond"), [(2_000, MOST_RARE), (20_000_000, RARE)])
def test_the_bulk_of_a_small_corpus_leaves_out_more_of_it_but_never_much(
    tmp_path: Path, n: int, beyond: float
) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.05, 2_000)
    path = tmp_path / "run.duckdb"
    write(path, {(0, "text", 0): np.repeat(values, n // 2_000)})
    with RunStore(path) as store:
        assert store.bulks()["d0"].beyond == beyond


def test_the_bulk_never_ends_beyond_the_farthest_token(tmp_path: Path) -> None:
    path = tmp_path / "run.duckdb"
    write(path, {(0, "text", 0): np.asarray([0.0012, 0.0011, 0.0013])})
    with RunStore(path) as store:
        bulk = store.bulks()["d0"]
    assert bulk.low == pytest.approx(0.0011, abs=1e-6)
    assert bulk.high <= np.float32(0.0013)


def test_a_run_without_content_tokens_has_no_bulks(tmp_path: Path) -> None:
    path = tmp_path / "run.duckdb"
    write(path, {})
    with RunStore(path) as store:
        assert store.bulks() == {}
        assert store.enriched_sources(0.05) == []
        assert list(store.saturations()) == []


def test_sources_and_growth_of_all_are_those_of_each(store_path: Path) -> None:
    with RunStore(store_path) as store:
        rows = store.directions()
        each = [held for row in rows for held in store.sources(row.id)]
        found = store.enriched_sources(0.05)
        assert {*found} == {held for held in each if held.q_value < 0.05}
        assert found
        assert [held.p_value for held in found] == sorted(held.p_value for held in found)
        assert list(store.saturations()) == [
            held for row in rows for held in store.saturation(row.id)
        ]
        extents = {(r.direction, r.role): r for r in store.ranges() if r.role in CONTENT_ROLES}
        for name, bulk in store.bulks().items():
            own = [extent for (direction, _), extent in extents.items() if direction == name]
            assert bulk.n == sum(extent.n for extent in own)
            low, high = min(e.minimum for e in own), max(e.maximum for e in own)
            assert low <= bulk.low < bulk.high <= high
