"""What can be downloaded: equal bytes for equal runs, nothing private, and code that works."""

from __future__ import annotations

import contextlib
import html
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from builder.config import SiteSettings
from builder.errors import StoreError
from builder.pages import build_site
from builder.pages.downloads import public
from builder.pages.folder import SiteFolder
from builder.pages.formats import size
from builder.records import Label
from builder.store import (
    LEVELS,
    RunStore,
    copy_database,
    download_bytes,
    tables_of,
    write_tables,
)
from builder.store.tables import TABLES, TEXTS


def rows_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory, tiny_folders: list[Path]) -> Path:
    """A site that offers all there is."""
    out = tmp_path_factory.mktemp("sites") / "site"
    build_site(tiny_folders, out, SiteSettings(examples=2, context=4, downloads="database"))
    return out


def test_tables_hold_the_rows_of_the_database(run_folders: list[Path], tmp_path: Path) -> None:
    database = run_folders[0] / "run.duckdb"
    assert {path.stem for path in write_tables(database, tmp_path, "tables")} == set(TABLES)
    with RunStore(database) as store:
        labels = [
            (row["direction"], row["pole"], row["labeler"], row["text"])
            for row in rows_of(tmp_path / "labels.parquet")
        ]
        assert sorted(labels, key=str) == sorted(
            ((n.direction, n.pole, n.labeler, n.text) for n in store.labels(candidates=True)),
            key=str,
        )
        scores = rows_of(tmp_path / "scores.parquet")
        assert len(scores) == len(store.scores(candidates=True)) > 0
        assert "judged" not in scores[0]
        assert [row["id"] for row in rows_of(tmp_path / "directions.parquet")] == [
            row.id for row in store.directions()
        ]
        ranges = rows_of(tmp_path / "ranges.parquet")
        assert [(row["direction"], row["role"], row["n"]) for row in ranges] == [
            (extent.direction, extent.role, extent.n) for extent in store.ranges()
        ]
        for table, rows in store.dump().items():
            if table in TABLES:
                assert len(rows_of(tmp_path / f"{table}.parquet")) == len(rows), table


def test_texts_come_with_their_activations(run_folders: list[Path], tmp_path: Path) -> None:
    database = run_folders[1] / "run.duckdb"
    names = {path.stem for path in write_tables(database, tmp_path, "examples")}
    assert names == set(TABLES) | set(TEXTS)
    rows = {
        (row["direction"], row["pole"], row["role"], row["place"]): row
        for row in rows_of(tmp_path / "examples.parquet")
    }
    with RunStore(database) as store:
        item = store.directions()[0].id
        examples = store.examples(item)
        assert examples
        for example in examples:
            row = rows[item, example.pole, example.role, example.place]
            assert row["text"] == example.window.text
            assert row["activations"] == example.activations.tolist()


def test_equal_databases_give_equal_bytes(run_folders: list[Path], tmp_path: Path) -> None:
    database, other = run_folders[0] / "run.duckdb", tmp_path / "other.duckdb"
    copy_database(database, other, lambda value: value)
    assert other.read_bytes() != database.read_bytes()
    places = [tmp_path / "one", tmp_path / "two"]
    for place, source in zip(places, (database, other), strict=True):
        place.mkdir()
        for path in write_tables(source, place, "examples"):
            assert path.parent == place
    for path in places[0].iterdir():
        assert path.read_bytes() == (places[1] / path.name).read_bytes(), path.name


def test_a_copied_database_has_the_same_rows_and_no_local_path(
    run_folders: list[Path], tmp_path: Path
) -> None:
    database, copy = run_folders[0] / "run.duckdb", tmp_path / "run.duckdb"
    assert b"/home/somebody" in database.read_bytes()
    copy_database(database, copy, public)
    assert b"somebody" not in copy.read_bytes()
    with RunStore(database) as store, RunStore(copy) as copied:
        held, found = store.dump(), copied.dump()
        assert copied.meta()["model"]["tuned"]["path"] == "pico-chat"
    assert "/home" not in str(found["meta"])
    assert {key: found[key] for key in held if key != "meta"} == {
        key: held[key] for key in held if key != "meta"
    }


def test_what_was_deleted_from_a_database_is_not_in_its_copy(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    database, secret = tmp_path / "run.duckdb", "winterberry-" * 2000
    shutil.copyfile(tiny_folders[0] / "run.duckdb", database)
    with RunStore(database, read_only=False) as store:
        item = store.directions()[0].id
        store.replace_labels([Label(item, "max", "once", secret)])
        store.forget_labels("once")
    assert b"winterberry-winterberry" in database.read_bytes()
    copy_database(database, tmp_path / "copy.duckdb", public)
    assert b"winterberry-winterberry" not in (tmp_path / "copy.duckdb").read_bytes()


def test_a_database_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "run.duckdb"
    broken.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"run\.duckdb"):
        download_bytes(broken, "tables")
    with pytest.raises(StoreError):
        list(write_tables(broken, tmp_path, "tables"))
    with pytest.raises(StoreError):
        copy_database(broken, tmp_path / "copy.duckdb", public)
    assert not (tmp_path / "copy.duckdb").exists()
    with pytest.raises(StoreError, match="no database here"):
        download_bytes(tmp_path / "none.duckdb", "tables")


def test_each_level_takes_more_than_the_one_before(offered: Path, tiny_folders: list[Path]) -> None:
    database = tiny_folders[0] / "run.duckdb"
    sizes = [download_bytes(database, level) for level in LEVELS]
    assert sizes == sorted(set(sizes))
    folder = offered / "api" / "pico-chat"
    whole = sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".json")
    assert whole / 2 < sizes[-1] < whole * 4


def test_the_page_lists_every_file(offered: Path) -> None:
    page = (offered / "downloads.html").read_text(encoding="utf-8")
    for run in ("pico-chat", "pico-lora"):
        for name in [*(f"{table}.parquet" for table in tables_of("database")), "run.duckdb"]:
            assert (offered / "api" / run / name).is_file()
            assert f'href="api/{run}/{name}"' in page
    assert page.count("CC0-1.0") >= 2


def test_the_code_on_the_page_works(offered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (offered / "downloads.html").read_text(encoding="utf-8")
    blocks = re.findall(r'data-language="(\w+)"><code>(.*?)</code>', page, flags=re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "python", "sql"]
    with contextlib.chdir(offered):
        for language, code in blocks:
            assert len(code.splitlines()) == 3
            if language == "python":
                exec(html.unescape(code), {})
                assert "image generator" in capsys.readouterr().out
            else:
                with duckdb.connect() as connection:
                    found = connection.sql(html.unescape(code)).fetchall()
                assert found


def test_a_lower_level_takes_away_what_a_higher_one_offered(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    small = SiteSettings(examples=2, context=4, downloads="examples")
    build_site(tiny_folders, tmp_path / "site", small)
    place = tmp_path / "site" / "api" / "pico-chat" / "examples.parquet"
    assert place.is_file()
    build_site(tiny_folders, tmp_path / "site", small.model_copy(update={"downloads": "tables"}))
    assert not place.exists()


def test_a_file_is_moved_in_only_when_it_changed(tmp_path: Path) -> None:
    for content, changed in ((b"a" * 100, 1), (b"a" * 100, 0), (b"b" * 100, 1)):
        folder = SiteFolder(tmp_path / "site")
        made = folder.scratch() / "made"
        made.write_bytes(content)
        folder.put_file("api/x/run.duckdb", made)
        assert folder.finish() == (changed, 0, 100)
        assert not made.exists()
        assert (tmp_path / "site" / "api" / "x" / "run.duckdb").read_bytes() == content
        assert sorted(path.name for path in (tmp_path / "site").iterdir()) == [
            "api", "manifest.json",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345, "12 kB"),
     (999_900, "1.0 MB"), (2_500_000_000, "2.5 GB")],
)  # fmt: skip
def test_sizes_are_short(count: int, shown: str) -> None:
    assert size(count) == shown.replace(" ", "\N{NO-BREAK SPACE}")
