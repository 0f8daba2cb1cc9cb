"""What is read of many directions at once is what is read of each, and its hash tells it apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.config import ScanSettings
from builder.records import ANY_ROLE, MODELS, POLES, ROLES, SCORERS, STRATA, Judged, Score
from builder.store import RunStore, write_database
from tests.pages.fixture import make_run
from tests.store.synthetic import directions_of

#: Tables that digests are of, each with one column that says which rows belong together.
HASHED = ("examples", "histograms", "sources", "saturation", "quantile_examples", "scores")
#: By type, an expression that gives another value of it than ``{0}`` is.
OTHERS = {
    "VARCHAR": "{0} || 'x'",
    "BOOLEAN": "NOT {0}",
    "DOUBLE": "coalesce({0}, 0.5) * 0.5 + 0.017",
    "FLOAT": "coalesce({0}, 0.5) * 0.5 + 0.017",
    "VARCHAR[]": "list_append({0}, 'x')",
    "MAP(VARCHAR, BIGINT)": "MAP {{'strange': 3}}",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(
        tmp_path_factory.mktemp("many") / "run",
        name="run", title="run", layers=2, ranks=2, documents=50, with_base=True,
    )  # fmt: skip
    return folder / "run.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[RunStore]:
    with RunStore(path) as opened:
        yield opened


def plain(value: Any) -> Any:
    """A record as values that can be compared, with arrays as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, plain(getattr(value, f.name))) for f in dataclasses.fields(value)]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


Read = Callable[[RunStore, str], Sequence[Any]]
ReadMany = Callable[[RunStore, Sequence[str]], Mapping[str, Sequence[Any]]]

QUERIES: dict[str, tuple[Read, ReadMany]] = {
    "examples": (RunStore.examples, RunStore.examples_of),
    "quantile examples": (RunStore.quantile_examples, RunStore.quantile_examples_of),
    "sources": (RunStore.sources, RunStore.sources_of),
    "saturation": (RunStore.saturation, RunStore.saturation_of),
    "similar": (RunStore.similar, RunStore.similar_of),
    "scores": (
        lambda store, key: store.scores(key, judged=True, candidates=True),
        RunStore.judged_scores_of,
    ),
    **{
        f"histograms of {model}": (
            lambda store, key, model=model: store.histograms(key, model),  # type: ignore[misc]
            lambda store, keys, model=model: store.histograms_of(keys, model),  # type: ignore[misc]
        )
        for model in MODELS
    },
}


@pytest.mark.parametrize("name", QUERIES)
def test_reading_many_directions_gives_what_reading_each_gives(store: RunStore, name: str) -> None:
    one, many = QUERIES[name]
    ids = [row.id for row in store.directions()]
    wanted = {key: plain(one(store, key)) for key in ids}
    assert any(wanted.values())
    shuffled = np.random.default_rng(0).permutation(ids).tolist()
    for asked in (ids, shuffled, shuffled[::3], ids[:1], []):
        found = many(store, asked)
        assert list(found) == asked
        assert {key: plain(rows) for key, rows in found.items()} == {
            key: wanted[key] for key in asked
        }
    assert many(store, ["nowhere"]) == {"nowhere": []}


def test_what_is_read_is_what_the_tables_hold(store: RunStore) -> None:
    ids = dict(store._connection.execute("SELECT direction, id FROM directions").fetchall())
    rows = {name: store._connection.execute(f"SELECT * FROM {name}").fetchall() for name in HASHED}
    several = list(ids.values())
    for model in range(len(MODELS)):
        found = store.histograms_of(several, MODELS[model])
        assert sorted(
            (h.direction, ROLES.index(h.role), h.counts.tolist())
            for own in found.values() for h in own
        ) == sorted(
            (ids[direction], role, counts)
            for direction, role, of, counts in rows["histograms"] if of == model
        )  # fmt: skip
    assert sorted(
        (s.direction, POLES.index(s.pole), *dataclasses.astuple(s)[2:])
        for own in store.sources_of(several).values() for s in own
    ) == sorted((ids[direction], *row) for direction, *row in rows["sources"])  # fmt: skip
    assert sorted(
        (s.direction, POLES.index(s.pole), list(s.documents), list(s.extremes), s.gain)
        for own in store.saturation_of(several).values() for s in own
    ) == sorted((ids[direction], *row) for direction, *row in rows["saturation"])  # fmt: skip


@pytest.mark.parametrize("within", [1, 3, 20])
def test_listed_examples_are_the_joint_list_and_the_first_of_every_roles(
    store: RunStore, within: int
) -> None:
    ids = [row.id for row in store.directions()]
    found = store.listed_examples_of(ids[::-1], within)
    assert list(found) == ids[::-1]
    every = store.listed_examples_of([ids[0], "nowhere"], within)
    assert every["nowhere"] == []
    assert plain(every[ids[0]]) == plain(found[ids[0]])
    for direction in ids:
        joint = {plain_key(e): e for e in store.examples(direction, role=ANY_ROLE)}
        ranked = {plain_key(e): e for e in store.examples(direction) if e.place < within}
        assert [plain_key(item.example) for item in found[direction]] == [
            plain_key(item.example) for item in sorted(found[direction], key=_order)
        ]
        assert len(found[direction]) == len(joint.keys() | ranked.keys())
        places = {plain_key(e): e.place for e in store.examples(direction)}
        for item in found[direction]:
            key = plain_key(item.example)
            example = joint.get(key) or ranked[key]
            assert plain(item.example) == plain(example)
            assert item.any_place == (joint[key].place if key in joint else None)
            assert item.place == places.get(key)


def plain_key(example: Any) -> tuple[str, str, int]:
    return (example.pole, example.role, example.window.doc_id)


def _order(item: Any) -> tuple[Any, ...]:
    """By pole and place in the joint list, which comes before what is in a role's list only."""
    joint = item.any_place is not None
    return (
        POLES.index(item.example.pole), not joint, item.any_place if joint else 0,
        ROLES.index(item.example.role), -1 if item.place is None else item.place,
    )  # fmt: skip


def test_scores_with_any_texts_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "run.duckdb"
    write_database(path, directions_of(40), [], settings=ScanSettings(), meta={})

    def judged() -> Judged:
        marked = tuple(rng.integers(0, 9, int(rng.integers(3))).tolist())
        verdict = None if rng.random() < 0.2 else float(np.float32(rng.random()))
        first, length = (int(n) for n in rng.integers(0, 99, 2))
        return Judged(
            STRATA[rng.integers(len(STRATA))], int(rng.integers(99)), int(rng.integers(1 << 40)),
            bool(rng.integers(2)), verdict, float(rng.random()), first, length, marked,
        )  # fmt: skip

    with RunStore(path, read_only=False) as store:
        ids = [row.id for row in store.directions()]
        given = [
            Score(
                direction, pole, "a-model", scorer, "a-judge", "rivers", 0.5, 0.5,
                judged=tuple(judged() for _ in range(int(rng.choice([0, 0, 1, 2, 30])))),
            )
            for direction in ids for pole in POLES for scorer in sorted(SCORERS)
        ]  # fmt: skip
        store.replace_scores("a-model", [given[at] for at in rng.permutation(len(given))])
    with RunStore(path) as store:
        assert store.scores(judged=True) == given
        assert store.scores() == [dataclasses.replace(score, judged=()) for score in given]
        found = store.judged_scores_of(ids[7::5])
        assert found == {key: [s for s in given if s.direction == key] for key in ids[7::5]}
        assert all(isinstance(item, Judged) for s in found[ids[7]] for item in s.judged)


def changes(store: RunStore, table: str) -> Iterator[tuple[str, str]]:
    """For each column of a table, an expression for another value of it."""
    columns = store._connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", [table]
    ).fetchall()
    for name, of_type in columns:
        if name in {"direction", "split"} or (table, name) == ("reservoir", "place"):
            continue
        column = f'"{name}"'
        if of_type.startswith("STRUCT"):
            yield name, f"list_reverse({column}[2:])"
        elif of_type in OTHERS:
            yield name, OTHERS[of_type].format(column)
        elif of_type.endswith("[]"):
            yield name, f"list_append(coalesce({column}, []), 7)"
        else:
            yield name, f"coalesce({column}, 0) + 100"


def found_after(store: RunStore, statement: str) -> tuple[Mapping[str, tuple[int, ...]], int]:
    """The digests as they are after a statement, which is taken back."""
    store._connection.execute("BEGIN")
    store._connection.execute(statement)
    found = store.digests(), store.reservoir_digest()
    store._connection.execute("ROLLBACK")
    return found


@pytest.mark.parametrize("table", HASHED)
@pytest.mark.parametrize("rows", [1, 2])
def test_a_digest_tells_of_every_value_and_of_its_direction_alone(
    path: Path, table: str, rows: int
) -> None:
    with RunStore(path, read_only=False) as store:
        before, random = store.digests(), store.reservoir_digest()
        (direction, name), *_ = store._connection.execute(
            f"SELECT direction, id FROM {table} JOIN directions USING (direction) "
            f"GROUP BY ALL HAVING count(*) > 1 ORDER BY 1"
        ).fetchall()
        # Two rows that get the same value must not cancel each other out.
        within = (
            f"rowid IN (SELECT rowid FROM {table} WHERE direction = {direction} "
            f"ORDER BY rowid LIMIT {rows})"
        )
        checked = 0
        for column, other in changes(store, table):
            if column in {"labeler", "candidate", "scorer", "pole", "role", "place"} and rows > 1:
                continue
            statement = f'UPDATE {table} SET "{column}" = {other} WHERE {within}'
            if rows > 1:
                statement = (
                    f'UPDATE {table} SET "{column}" = (SELECT any_value({other}) FROM {table} '
                    f"WHERE {within}) WHERE {within}"
                )
            after, reservoir = found_after(store, statement)
            assert {key for key in before if after[key] != before[key]} == {name}, column
            assert reservoir == random
            checked += 1
        assert checked > 1
        assert (store.digests(), store.reservoir_digest()) == (before, random)


def test_the_digest_of_random_documents_tells_of_every_value_of_any_of_them(path: Path) -> None:
    with RunStore(path, read_only=False) as store:
        before, random = store.digests(), store.reservoir_digest()
        for column, other in changes(store, "reservoir"):
            for within in ("place = 3", "place IN (3, 4)", "TRUE"):
                statement = f'UPDATE reservoir SET "{column}" = {other} WHERE {within}'
                after, reservoir = found_after(store, statement)
                assert reservoir != random, column
                assert after == before


def test_digests_do_not_depend_on_the_order_of_rows(path: Path) -> None:
    with RunStore(path, read_only=False) as store:
        before = store.digests(), store.reservoir_digest()
        for table in (*HASHED[:-1], "reservoir"):
            store._connection.execute("BEGIN")
            store._connection.execute(
                f"CREATE TEMP TABLE held AS SELECT * FROM {table} ORDER BY hash(rowid + 1)"
            )
            store._connection.execute(f"DELETE FROM {table}")
            store._connection.execute(f"INSERT INTO {table} SELECT * FROM held")
            assert (store.digests(), store.reservoir_digest()) == before
            store._connection.execute("ROLLBACK")
        assert len(before[0]) == len(store.directions())
        assert len(set(before[0].values())) == len(before[0])
