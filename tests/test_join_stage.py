"""Runs over different corpora, joined, are the run over all of them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder import cli, join_stage
from builder.config import Source
from builder.errors import ConfigError, StoreError
from builder.execute import run_lock
from builder.join_stage import join_runs
from builder.pipeline import status
from builder.run_folder import existing_run, with_sources
from builder.store import RunStore
from builder.weights.direction_file import save_directions
from tests import micro
from tests.scanned import run_of, scan, write_texts
from tests.store.synthetic import directions_of

#: What tells of a run's name and of how its corpus was cut into shards, not of results.
_OWN = ("name", "settings", "scan_fingerprint", "corpus")


def texts(seed: int, n: int) -> list[str]:
    """Texts without near-duplicates, some of which stand in every seed's list."""
    rng, shared = random.Random(seed), random.Random(99)
    common = [micro.sentence(shared, 9) for _ in range(6)]
    found = [micro.sentence(rng, rng.randint(6, 15)) for _ in range(n)]
    return [*common[:3], *found, *rng.sample(found, 4), *common[2:]]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Source]:
    return {
        name: write_texts(tmp_path / f"{name}.jsonl", texts(at, 20 + 4 * at))
        for at, name in enumerate("abc")
    }


@pytest.fixture
def scanned(tmp_path: Path, sources: dict[str, Source]) -> dict[str, Path]:
    """A run over each source."""
    folders = {name: tmp_path / "runs" / name for name in sources}
    for name, folder in folders.items():
        scan(run_of(folder, sources[name]))
    return folders


def dump(folder: Path) -> dict[str, Any]:
    """The database, but for what names the run; floats of sums to within rounding."""
    with RunStore(folder / "run.duckdb") as store:
        tables: dict[str, Any] = store.dump()
    tables["meta"] = [row for row in tables["meta"] if row[0] not in _OWN]
    for name, rows in tables.items():
        tables[name] = [tuple(_rounded(value) for value in row) for row in rows]
    return tables


def _rounded(value: Any) -> Any:
    return float(np.round(value, 9)) if isinstance(value, float) else value


def join(out: Path, *folders: Path) -> Path:
    join_runs(folders, out)
    return out


def test_a_joined_run_holds_what_one_run_over_all_sources_holds(
    tmp_path: Path, sources: dict[str, Source], scanned: dict[str, Path]
) -> None:
    joined = join(tmp_path / "runs" / "joined", scanned["a"], scanned["b"])
    run = run_of(tmp_path / "runs" / "grown", sources["a"])
    scan(run)
    run = run_of(run.folder, sources["a"], sources["b"])
    scan(run)
    one, two = dump(joined), dump(run.folder)
    assert one == two
    assert {row[0] for row in one["counts"]} >= {"distinct", "levels", "documents"}
    duplicates = 10  # its column in ``examples``
    assert max(row[duplicates] for row in one["examples"]) >= 1


def test_joining_is_associative(tmp_path: Path, scanned: dict[str, Path]) -> None:
    place = tmp_path / "runs"
    left = join(place / "left", join(place / "ab", scanned["a"], scanned["b"]), scanned["c"])
    right = join(place / "right", scanned["a"], join(place / "bc", scanned["b"], scanned["c"]))
    together = join(place / "abc", *scanned.values())
    assert dump(left) == dump(right) == dump(together)


def test_joining_a_run_with_itself_or_its_parts_adds_nothing(
    tmp_path: Path, scanned: dict[str, Path]
) -> None:
    place = tmp_path / "runs"
    assert dump(join(place / "aa", scanned["a"], scanned["a"])) == dump(scanned["a"])
    both = join(place / "ab", scanned["a"], scanned["b"])
    assert dump(join(place / "again", both, scanned["b"], scanned["a"])) == dump(both)


def test_runs_are_joined_when_their_sources_are_gone(
    tmp_path: Path, sources: dict[str, Source], scanned: dict[str, Path]
) -> None:
    before = dump(join(tmp_path / "runs" / "one", scanned["a"], scanned["b"]))
    for source in sources.values():
        Path(source.path).unlink()
    moved = {name: folder.rename(tmp_path / name) for name, folder in scanned.items()}
    assert dump(join(tmp_path / "runs" / "two", moved["a"], moved["b"])) == before


def test_a_joined_run_can_be_scanned_again_and_further(
    tmp_path: Path, sources: dict[str, Source], scanned: dict[str, Path]
) -> None:
    joined = join(tmp_path / "runs" / "joined", scanned["a"], scanned["b"])
    before = (joined / "run.duckdb").stat()
    scan(existing_run(joined))
    after = (joined / "run.duckdb").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    scan(with_sources(existing_run(joined), [sources["c"].path]))
    grown = run_of(tmp_path / "runs" / "grown", sources["a"], sources["b"])
    scan(grown)
    scan(run_of(grown.folder, *sources.values()))
    assert dump(joined) == dump(grown.folder)


def test_the_runs_that_are_joined_stay_as_they_are(
    tmp_path: Path, scanned: dict[str, Path]
) -> None:
    def content() -> dict[Path, bytes]:
        files = (path for folder in scanned.values() for path in folder.rglob("*"))
        return {path: path.read_bytes() for path in files if path.is_file()}

    before = content()
    joined = join(tmp_path / "runs" / "joined", *scanned.values())
    shutil.rmtree(joined)
    assert content() == before


def test_runs_of_other_directions_or_settings_are_refused_with_the_differences(
    tmp_path: Path, sources: dict[str, Source], scanned: dict[str, Path]
) -> None:
    other = run_of(tmp_path / "runs" / "other", sources["b"], scan={"top": 5})
    scan(other)
    with pytest.raises(ConfigError, match=r"scan\.top: 4 there, 5 here"):
        join(tmp_path / "out", scanned["a"], other.folder)
    save_directions(scanned["b"] / "directions.safetensors", directions_of(6))
    with pytest.raises(ConfigError, match="4 directions there, 6 here"):
        join(tmp_path / "out", scanned["a"], scanned["b"])
    save_directions(scanned["b"] / "directions.safetensors", directions_of(4, width=3))
    with pytest.raises(ConfigError, match=r"L00\.o_proj\.u00: its vectors differ"):
        join(tmp_path / "out", scanned["a"], scanned["b"])
    (scanned["c"] / "stages" / "models.json").write_text('{"/m/model.safetensors": [1, 2, "ab"]}')
    with pytest.raises(ConfigError, match=r"model file model\.safetensors: not the same bytes"):
        join(tmp_path / "out", scanned["a"], scanned["c"])
    assert not list(tmp_path.glob("out*"))


def test_what_is_not_finished_or_not_sound_is_refused(
    tmp_path: Path, sources: dict[str, Source], scanned: dict[str, Path]
) -> None:
    out = tmp_path / "runs" / "out"
    with pytest.raises(ConfigError, match="at least two"):
        join(out, scanned["a"])
    with pytest.raises(ConfigError, match="is there already"):
        join(scanned["c"], scanned["a"], scanned["b"])
    with pytest.raises(ConfigError, match="is no run folder"):
        join(out, scanned["a"], tmp_path)
    fresh = run_of(tmp_path / "runs" / "fresh", sources["b"])
    (fresh.folder / "run.toml").write_bytes((scanned["b"] / "run.toml").read_bytes())
    with pytest.raises(ConfigError, match="nothing is scanned yet"):
        join(out, scanned["a"], fresh.folder)
    with run_lock(scanned["b"]), pytest.raises(StoreError, match="another weightatlas process"):
        join(out, scanned["a"], scanned["b"])
    shard = min((scanned["b"] / "shards").iterdir())
    data = bytearray((shard / "tail.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (shard / "tail.parquet").write_bytes(data)
    with pytest.raises(StoreError, match=rf"{shard.name}: is damaged; run `weightatlas scan"):
        join(out, scanned["a"], scanned["b"])
    assert shard.is_dir()
    shutil.rmtree(shard)
    with pytest.raises(ConfigError, match=r"shard 0 of \d+ is not there"):
        join(out, scanned["a"], scanned["b"])
    with pytest.raises(ConfigError, match="name"):
        join(tmp_path / "runs" / "Bad Name", scanned["a"], scanned["c"])
    assert not out.exists()
    assert not list(out.parent.glob("*.part"))


def test_a_join_that_fails_leaves_nothing(
    tmp_path: Path, scanned: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "runs" / "out"
    with monkeypatch.context() as patched:
        patched.setattr(join_stage, "merge_shards", stop)
        with pytest.raises(KeyboardInterrupt):
            join(out, scanned["a"], scanned["b"])
    assert not list(out.parent.glob("out*"))
    # A killed one leaves its folder, which the next one takes away.
    out.with_name("out.part").mkdir()
    join(out, scanned["a"], scanned["b"])
    assert not out.with_name("out.part").exists()


def test_the_command_joins_runs(
    tmp_path: Path, scanned: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "out"
    arguments = [str(scanned["a"]), str(scanned["b"]), "-o", str(out)]
    assert cli.main(["merge", *arguments]) == 0
    assert str(out / "run.duckdb") in capsys.readouterr().out
    assert existing_run(out).settings.name == "out"
    assert cli.main(["merge", str(scanned["c"]), *arguments]) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["status", str(out)]) == 0
    shown = capsys.readouterr().out
    n = len(list((out / "shards").iterdir()))
    assert f"{len(texts(0, 20)) + len(texts(1, 24))} documents, {n} of {n} shards scanned" in shown
    assert "2 runs, " in shown


def test_the_status_counts_shards_where_there_is_no_record_of_a_scan(
    tmp_path: Path, scanned: dict[str, Path]
) -> None:
    n = len(list((scanned["a"] / "shards").iterdir()))
    assert n > 1
    assert not (scanned["a"] / "stages" / "progress.json").exists()
    (scanned["a"] / "shards" / "000099-0123456789abcdef.part").mkdir()
    found = status(scanned["a"])
    assert (found["shards_done"], found["shards"], found["scan"]) == (n, n, None)


def test_the_same_join_again_finishes_what_is_there(
    tmp_path: Path, scanned: dict[str, Path]
) -> None:
    out = join(tmp_path / "runs" / "out", scanned["a"], scanned["b"])
    wanted, before = dump(out), (out / "run.duckdb").stat()
    assert join(out, scanned["a"], scanned["b"]) == out
    after = (out / "run.duckdb").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    (out / "run.duckdb").unlink()
    assert dump(join(out, scanned["a"], scanned["b"])) == wanted
    for others in (["b", "a"], ["a", "c"], ["a", "b", "c"]):
        with pytest.raises(ConfigError, match="is there already"):
            join(out, *(scanned[name] for name in others))
    save_directions(out / "directions.safetensors", directions_of(6))
    with pytest.raises(ConfigError, match="is there already"):
        join(out, scanned["a"], scanned["b"])


def test_a_run_inside_a_run_that_is_joined_is_refused(
    tmp_path: Path, scanned: dict[str, Path]
) -> None:
    before = sorted(scanned["b"].rglob("*"))
    (tmp_path / "link").symlink_to(scanned["b"])
    for out in (scanned["b"] / "sub", scanned["b"] / "x" / "sub", tmp_path / "link" / "sub"):
        with pytest.raises(ConfigError, match=r"lies in .*b, a run that is to be joined"):
            join(out, scanned["a"], scanned["b"])
    assert sorted(scanned["b"].rglob("*")) == before


def counts_of(folder: Path, what: str) -> int:
    with RunStore(folder / "run.duckdb") as store:
        return sum(count.n for count in store.counts() if count.what == what)


def test_a_source_that_runs_share_counts_once_whatever_came_before_it(tmp_path: Path) -> None:
    rng = random.Random(5)
    shared = [micro.sentence(rng, 12) for _ in range(5)]
    first, last = ([micro.sentence(rng, n) for _ in range(20)] for n in (12, 11))
    one = write_texts(tmp_path / "one.jsonl", [*first, *shared])
    two = write_texts(tmp_path / "two.jsonl", [*shared, *last])
    runs = tmp_path / "runs"
    scan(run_of(runs / "x", one))
    for name, sources in (("y", (two, one)), ("g", (one, two))):
        scan(run_of(runs / name, sources[0]))
        scan(run_of(runs / name, *sources))
    wanted = [counts_of(runs / "g", what) for what in ("documents", "distinct", "tokens")]
    assert wanted[:2] == [50, 45]
    for named in ("xy", "yx", "gx", "xg", "gy", "yg", "xgy"):
        join(runs / named, *(runs / name for name in named))
        found = [counts_of(runs / named, what) for what in ("documents", "distinct", "tokens")]
        assert found == wanted, named
        with RunStore(runs / named / "run.duckdb") as store:
            ids = [row.id for row in store.directions()]
            assert {s.all_documents for item in ids for s in store.sources(item)} == {45}


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, scanned: dict[str, Path]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file/x: cannot be made"):
        join_runs(list(scanned.values()), tmp_path / "file" / "x")
