"""A database holds what a plain loop over all rows of all shards would find, however they come."""

from __future__ import annotations

import itertools
import math
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest, fisher_exact

from builder.config import ScanSettings
from builder.errors import StoreError
from builder.records import ACTIVATION_SCALE, ANY_ROLE, CONTENT_ROLES, POLES, ROLES, Example
from builder.store import NO_CLUSTERS, Clusters, RunStore, Shard, merge, shards, write_database
from tests.micro import watch_bars
from tests.readings import stand
from tests.store.synthetic import (
    Scale,
    clusters_of,
    copies_of,
    directions_of,
    roles_of,
    source_of,
    text_of,
    write_shard,
)

SCALE = Scale(with_base=True)
SETTINGS = ScanSettings(top=4, tail=10, reservoir=9, held_out=4, quantiles=3)
SHARDS = 5

_MOMENTS = ("n", "total", "squares")

Dump = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("shards")
    return [write_shard(place, number, SCALE) for number in range(SHARDS)]


@pytest.fixture(scope="module")
def database(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merged(tmp_path_factory.mktemp("run") / "run.duckdb", [Shard(f) for f in folders])


def merged(path: Path, found: Sequence[Shard], clusters: Clusters | None = None) -> Path:
    write_database(
        path,
        directions_of(SCALE.directions),
        found,
        settings=SETTINGS,
        meta={},
        clusters=copies_of(SHARDS, SCALE) if clusters is None else clusters,
    )
    return path


def dump(path: Path) -> Dump:
    with RunStore(path) as store:
        return store.dump()


def rows_of(folders: Sequence[Path], name: str) -> list[dict[str, Any]]:
    return [row for folder in folders for row in pq.read_table(folder / name).to_pylist()]


def order(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["value"] * (1, -1)[row["pole"] == 0], row["doc_id"], row.get("position", 0))


def grouped(rows: list[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return found


def test_examples_are_those_of_a_plain_loop(folders: list[Path], database: Path) -> None:
    lists = grouped(rows_of(folders, "examples.parquet"), "direction", "role", "pole")
    copies = dict(zip(*(item.tolist() for item in copies_of(SHARDS, SCALE)), strict=True))
    names = [item.id for item in directions_of(SCALE.directions).directions]
    n_duplicates = n_repeats = 0
    with RunStore(database) as store:
        for (direction, role, pole), rows in lists.items():
            found = store.examples(names[direction], pole=POLES[pole], role=ROLES[role])
            wanted = stand(rows, SETTINGS.top)
            assert [item.place for item in found] == list(range(SETTINGS.top))
            for item, row in zip(found, wanted, strict=True):
                window, stop = item.window, row["start"] + len(row["activations"])
                assert (window.doc_id, window.start) == (row["doc_id"], row["start"])
                assert (item.value, item.peak) == (row["value"], row["position"] - row["start"])
                assert item.activations.tolist() == row["activations"]
                assert item.base_activations is not None
                assert item.base_activations.tolist() == row["base_activations"]
                tokens = text_of(window.doc_id, SCALE)[row["start"] : stop]
                assert window.text == "".join(tokens)
                assert window.token_ends.tolist() == np.cumsum([len(t) for t in tokens]).tolist()
                assert window.source == source_of(np.asarray([window.doc_id]), SCALE)[0]
                roles = roles_of(window.doc_id, SCALE)[row["start"] : stop]
                assert item.roles.tolist() == roles.tolist()
                assert item.duplicates == copies.get(row["cluster"], 0)
                assert item.repeats == row["repeats"]
                n_duplicates += item.duplicates
                n_repeats += item.repeats > 1
    assert n_duplicates
    assert n_repeats


def test_near_duplicates_are_the_shown_documents_of_one_cluster(database: Path) -> None:
    with RunStore(database) as store:
        shown = {window.doc_id for window in (*store.reservoir(), *store.held_out())}
        for row in store.directions():
            for role in (None, ANY_ROLE):
                shown |= {e.window.doc_id for e in store.examples(row.id, role=role)}
        found = store.near_duplicates()
    ids = np.asarray(sorted(shown))
    wanted: defaultdict[int, set[int]] = defaultdict(set)
    for doc_id, cluster in zip(ids.tolist(), clusters_of(ids, SCALE).tolist(), strict=True):
        wanted[cluster].add(doc_id)
    assert found
    assert found == {doc: alike for alike in wanted.values() if len(alike) > 1 for doc in alike}


def test_the_list_over_all_roles_takes_each_cluster_once(
    folders: list[Path], database: Path
) -> None:
    kept = [
        row
        for rows in grouped(
            rows_of(folders, "examples.parquet"), "direction", "role", "pole"
        ).values()
        for row in rows
        if row["role"] < len(CONTENT_ROLES)
    ]
    names = [item.id for item in directions_of(SCALE.directions).directions]
    with RunStore(database) as store:
        for (direction, pole), rows in grouped(kept, "direction", "pole").items():
            found = store.examples(names[direction], pole=POLES[pole], role=ANY_ROLE)
            wanted = stand(rows, SETTINGS.top)
            assert [item.window.doc_id for item in found] == [row["doc_id"] for row in wanted]


def test_many_directions_are_read_as_each_alone(database: Path) -> None:
    with RunStore(database) as store:
        names = [row.id for row in store.directions()][::-1]
        for role in (None, ANY_ROLE, ROLES[1]):
            together = store.examples_of([*names, "none of that name"], role=role)
            assert list(together) == [*names, "none of that name"]
            assert together.pop("none of that name") == []
            for name, found in together.items():
                alone = store.examples(name, role=role)
                assert [_values(one) for one in found] == [_values(one) for one in alone]
                assert {one.direction for one in found} == {name}
        quantiles, sources = store.quantile_examples_of(names), store.sources_of(names)
        for name in names:
            one_by_one = [_values(one) for one in store.quantile_examples(name)]
            assert [_values(one) for one in quantiles[name]] == one_by_one
            assert sources[name] == store.sources(name)
            assert sources[name]


def _values(example: Example) -> list[object]:
    window = example.window
    lists = (example.activations, example.roles, window.token_ends, example.base_activations)
    plain = (example.pole, example.role, example.place, example.value, example.peak, window.text)
    return [*plain, *(None if each is None else each.tolist() for each in lists)]


def test_statistics_add_up(folders: list[Path], database: Path) -> None:
    tables = grouped(rows_of(folders, "stats.parquet"), "model", "direction", "role")
    names = [item.id for item in directions_of(SCALE.directions).directions]
    with RunStore(database) as store:
        shifts = {(item.direction, item.role): item for item in store.shifts()}
        for number, model in enumerate(("tuned", "base", "difference")):
            ranges = {(item.direction, item.role): item for item in store.ranges(model)}
            assert len(ranges) == SCALE.directions * len(SCALE.roles)
            for (of, direction, role), rows in tables.items():
                if of != number:
                    continue
                key = (names[direction], ROLES[role])
                n, extent = sum(row["n"] for row in rows), ranges[key]
                mean = sum(row["total"] for row in rows) / n
                square = sum(row["squares"] for row in rows) / n
                assert extent.n == n
                assert extent.minimum == min(row["minimum"] for row in rows)
                assert extent.maximum == max(row["maximum"] for row in rows)
                assert extent.mean == pytest.approx(mean)
                assert extent.std == pytest.approx((square - mean**2) ** 0.5)
                held = {item.role: item for item in store.histograms(key[0], model)}
                counts = np.sum([row["counts"] for row in rows], axis=0)
                assert held[key[1]].counts.tolist() == counts.tolist()
                if model == "difference":
                    assert shifts[key].n == n
                    assert shifts[key].mean == pytest.approx(mean)
                    assert shifts[key].std == pytest.approx((square - mean**2) ** 0.5)


def test_the_share_outside_the_base_counts_bins_that_lie_wholly_beyond(
    folders: list[Path], tmp_path: Path, database: Path
) -> None:
    with RunStore(database) as store:
        tuned = {(i.direction, i.role): i for i in store.ranges()}
        base = {(i.direction, i.role): i for i in store.ranges("base")}
        some = 0
        for shift in store.shifts():
            key = (shift.direction, shift.role)
            counts = {h.role: h.counts for h in store.histograms(shift.direction)}[shift.role]
            # Values of the made-up shards lie at the centres of bins, 0.005 wide.
            beyond = sum(
                int(n)
                for at, n in enumerate(counts)
                if -1 + at * 0.005 > base[key].maximum or -1 + (at + 1) * 0.005 < base[key].minimum
            )
            assert shift.outside == pytest.approx(beyond / tuned[key].n)
            some += beyond
        assert some


def test_the_tail_is_counted_by_source_and_held_against_the_corpus(
    folders: list[Path], database: Path
) -> None:
    lists = grouped(rows_of(folders, "tail.parquet"), "direction", "pole")
    distinct: Counter[str] = Counter()
    for row in rows_of(folders, "counts.parquet"):
        distinct[row["name"]] += row["n"] * (row["what"] == "distinct")
    names = [item.id for item in directions_of(SCALE.directions).directions]
    p_values, found_q = [], []
    with RunStore(database) as store:
        for direction, pole in itertools.product(range(SCALE.directions), range(2)):
            first: dict[int, dict[str, Any]] = {}
            for row in sorted(lists[direction, pole], key=lambda row: row["doc_id"]):
                first.setdefault(row["cluster"], row)
            tail = sorted(first.values(), key=order)[: SETTINGS.tail]
            held = Counter(row["source"] for row in tail)
            shares = [s for s in store.sources(names[direction]) if s.pole == POLES[pole]]
            assert {s.source: s.n for s in shares} == dict(held)
            for share in shares:
                assert share.tail == len(tail) == SETTINGS.tail
                assert share.documents == distinct[share.source]
                assert share.all_documents == distinct.total()
                others, rest = share.tail - share.n, share.documents - share.n
                wanted = fisher_exact(
                    [[share.n, others], [rest, share.all_documents - share.n - others - rest]],
                    alternative="greater",
                ).pvalue
                # All documents are of one length here, so that it explains nothing.
                own = distinct[share.source] / distinct.total()
                of_share = binomtest(share.n, share.tail, own, alternative="greater").pvalue
                assert share.p_value == pytest.approx(max(wanted, of_share))
                p_values.append(share.p_value)
                found_q.append(share.q_value)
    # Benjamini and Hochberg, as they wrote it, over tests of sources without tail documents too.
    tests = SCALE.directions * 2 * len(SCALE.sources)
    ranked = sorted(p_values)
    for p, q in zip(p_values, found_q, strict=True):
        wanted = min(other * tests / (at + 1) for at, other in enumerate(ranked) if other >= p)
        assert q == pytest.approx(min(1.0, wanted))


def test_saturation_is_the_extreme_over_growing_shares(folders: list[Path], database: Path) -> None:
    levels = grouped(rows_of(folders, "levels.parquet"), "direction")
    held: Counter[int] = Counter()
    for row in rows_of(folders, "counts.parquet"):
        if row["what"] == "levels":
            held[int(row["name"])] += row["n"]
    names = [item.id for item in directions_of(SCALE.directions).directions]
    stats = grouped(rows_of(folders, "stats.parquet"), "direction", "model")
    gains: list[float] = []
    with RunStore(database) as store:
        for direction, name in enumerate(names):
            content = [row for row in stats[direction, 0] if row["role"] < len(CONTENT_ROLES)]
            n, total, squares = (sum(row[of] for row in content) for of in _MOMENTS)
            spread = math.sqrt(squares / n - (total / n) ** 2)
            top, bottom = store.saturation(name)
            rows = levels[direction,]
            shares = [level for level in range(11, -1, -1) if held[level]]
            for found, pick, column in ((top, max, "maximum"), (bottom, min, "minimum")):
                assert found.documents == tuple(
                    sum(n for other, n in held.items() if other >= level) for level in shares
                )
                assert found.extremes == tuple(
                    pick(row[column] for row in rows if row["level"] >= level) for level in shares
                )
            assert top.documents[-1] == SHARDS * SCALE.documents
            for found in (top, bottom):
                assert found.gain is not None
                added = abs(found.extremes[-1] - found.extremes[-4])
                doublings = math.log2(found.documents[-1] / found.documents[-4])
                assert found.gain == pytest.approx(added / doublings / spread)
                gains.append(found.gain)
    assert any(gains)


def test_samples_come_in_the_order_of_their_priority(folders: list[Path], database: Path) -> None:
    chosen: dict[int, dict[str, Any]] = {}
    rows = rows_of(folders, "samples.parquet")
    for row in sorted(rows, key=lambda row: (row["priority"], row["doc_id"])):
        chosen.setdefault(row["cluster"], row)
    wanted = list(chosen.values())
    names = [item.id for item in directions_of(SCALE.directions).directions]
    first = wanted[: SETTINGS.reservoir]
    with RunStore(database) as store:
        assert [w.doc_id for w in store.reservoir()] == [row["doc_id"] for row in first]
        later = wanted[SETTINGS.reservoir : SETTINGS.reservoir + SETTINGS.held_out]
        assert [w.doc_id for w in store.held_out()] == [row["doc_id"] for row in later]
        for window, row in zip(store.reservoir(), first, strict=True):
            tokens = text_of(row["doc_id"], SCALE)[row["start"] : row["start"] + row["length"]]
            assert window.text == "".join(tokens)
        for direction, name in enumerate(names):
            for pole, pick, sign in (("max", max, 1), ("min", min, -1)):
                peaks = []
                for row in [*first, *later]:
                    roles = roles_of(row["doc_id"], SCALE)[row["start"] :]
                    values = row["activations"][direction * row["length"] :][: row["length"]]
                    own = [v for v, role in zip(values, roles, strict=False) if role != 5]
                    peaks.append((pick(own or values), values))
                found = store.sample_peaks([name])[name]["max" if pole == "max" else "min"]
                assert [*found[0], *found[1]] == [peak for peak, _ in peaks]
                # Three quantiles of few documents: those in the middle of each third.
                ranked = sorted(peaks[: len(first)], key=lambda item: sign * item[0])
                middle = [ranked[int((at + 0.5) * len(first) / 3)] for at in range(3)]
                shown = [e for e in store.quantile_examples(name) if e.pole == pole]
                assert [e.activations.tolist() for e in shown] == [values for _, values in middle]
                for example, (peak, _) in zip(shown, middle, strict=True):
                    assert example.activations[example.peak] == peak
                    assert example.value == pytest.approx(peak / ACTIVATION_SCALE)
                    assert example.base_activations is not None


@pytest.mark.parametrize("seed", range(4))
def test_a_merge_depends_neither_on_order_nor_on_repetition_nor_on_chunks(
    folders: list[Path],
    database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(shards, "_FIRST_CHUNK", (1, 150, 300, 10**6)[seed])
    monkeypatch.setattr(shards, "_LARGEST_CHUNK", (1, 200, 10**6, 10**6)[seed])
    given = [Shard(folder) for folder in [*folders, *rng.sample(folders, 2)]]
    rng.shuffle(given)
    assert dump(merged(tmp_path / "run.duckdb", given)) == dump(database)


def test_documents_of_a_later_part_are_counted_from_its_offset(
    folders: list[Path], tmp_path: Path
) -> None:
    one = dump(merged(tmp_path / "one.duckdb", [Shard(folder) for folder in folders]))
    two = dump(merged(tmp_path / "two.duckdb", [Shard(folder, 7000) for folder in folders]))
    with duckdb.connect(str(tmp_path / "two.duckdb")) as connection:
        connection.execute("UPDATE near_duplicates SET lowest = lowest - 7000")
        for table in ("examples", "reservoir", "near_duplicates"):
            connection.execute(f"UPDATE {table} SET doc_id = doc_id - 7000")
    assert one != two
    assert dump(tmp_path / "two.duckdb") == one


def test_the_rows_lie_in_the_same_order_every_time(folders: list[Path], tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        path = merged(tmp_path / f"{name}.duckdb", [Shard(folder) for folder in folders])
        with duckdb.connect(str(path), read_only=True) as connection:
            tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            written.append(
                {t: connection.execute(f"SELECT * FROM {t}").fetchall() for (t,) in sorted(tables)}
            )
    assert written[0] == written[1]


def test_a_scan_without_the_base_has_no_shifts_and_no_base_activations(tmp_path: Path) -> None:
    plain = Scale()
    folder = write_shard(tmp_path, 0, plain)
    path = merged(tmp_path / "run.duckdb", [Shard(folder)], NO_CLUSTERS)
    with RunStore(path) as store:
        name = store.directions()[0].id
        assert not store.shifts()
        assert not store.ranges("base")
        assert not store.histograms(name, "difference")
        shown = [*store.examples(name), *store.quantile_examples(name)]
        assert shown
        assert all(item.base_activations is None for item in shown)


@pytest.mark.parametrize("file", ["examples", "documents", "stats", "tail", "levels", "samples"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_shard_that_cannot_be_read_is_named_and_nothing_is_left(
    folders: list[Path], tmp_path: Path, file: str, damage: str
) -> None:
    copies = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders[:2]]
    victim = copies[1] / f"{file}.parquet"
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-20])
    with pytest.raises(StoreError) as raised:
        merged(tmp_path / "run.duckdb", [Shard(folder) for folder in copies])
    assert copies[1].name in str(raised.value)
    assert "run the same command again" in " ".join(str(raised.value).split())
    assert not list(tmp_path.glob("run.duckdb*"))


def test_an_example_without_its_text_is_an_error_not_left_out(
    folders: list[Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders[0], tmp_path / folders[0].name))
    table = pq.read_table(folder / "documents.parquet")
    pq.write_table(table.slice(0, table.num_rows // 2), folder / "documents.parquet")
    with pytest.raises(StoreError, match=rf"{folder.name}: names \d+ windows"):
        merged(tmp_path / "run.duckdb", [Shard(folder)])


def test_a_merge_tells_how_far_it_is(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = watch_bars(monkeypatch, merge)
    merged(tmp_path / "run.duckdb", [Shard(folder) for folder in folders])
    ((bar, options),) = bars
    assert bar.n == bar.total == 4 * SHARDS
    assert (bar.desc, options["disable"]) == ("merge", None)
