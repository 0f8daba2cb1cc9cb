"""Peaks as the database cuts them are those of whole windows cut in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from builder.pages.spans import Pieces
from builder.records import ANY_ROLE, Pole, Window
from builder.store import Peak, RunStore
from builder.store.schema import SCHEMA, SCHEMA_VERSION, connect
from tests.pages.fixture import make_run

Listed = dict[tuple[str, Pole], list[Peak]]


@pytest.fixture(scope="module", params=[False, True], ids=["ordinary", "hostile"])
def store_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose emoji are two tokens each, and one whose texts are attacks."""
    folder = make_run(
        tmp_path_factory.mktemp("peaks") / "run",
        name="run", title="run", hostile=request.param, layers=2, ranks=2, documents=60,
    )  # fmt: skip
    return folder / "run.duckdb"


def by_windows(store: RunStore) -> Listed:
    """The same from every example, one after the other."""
    found: Listed = {}
    for direction in store.directions():
        for example in store.examples(direction.id, role=ANY_ROLE):
            token = Pieces.text_at(example.window, example.peak)
            peak = Peak(token, example.window.source, example.value)
            found.setdefault((direction.id, example.pole), []).append(peak)
    return found


def test_peaks_are_those_of_the_examples_window_by_window(store_path: Path) -> None:
    with RunStore(store_path) as store:
        wanted = by_windows(store)
        found = [((direction, pole), peaks) for direction, pole, peaks in store.peaks()]
    assert dict(found) == wanted
    assert [key for key, _ in found] == list(wanted)
    assert any("\U0001f389" in peak.token for _, peaks in found for peak in peaks)


def test_peaks_are_cut_by_place(store_path: Path) -> None:
    with RunStore(store_path) as store:
        wanted = {key: peaks[:3] for key, peaks in by_windows(store).items()}
        assert {(key, pole): peaks for key, pole, peaks in store.peaks(3)} == wanted


def insert(path: Path, windows: list[tuple[str, list[int], int]]) -> None:
    """A database with one direction whose examples are these (text, token lengths, peak)."""
    with connect(path, read_only=False) as connection:
        connection.execute(SCHEMA)
        version = ("schema_version", json.dumps(SCHEMA_VERSION))
        connection.execute("INSERT INTO meta VALUES (?, ?)", version)
        connection.execute(
            "INSERT INTO directions BY NAME SELECT 0 AS direction, 'd' AS id, '' AS content_hash, "
            "0 AS layer, 'o_proj' AS writer, '' AS module, 0 AS rank, 'delta' AS kind, "
            "[]::INTEGER[] AS group_ranks"
        )
        for place, (text, lengths, peak) in enumerate(windows):
            connection.execute(
                "INSERT INTO examples BY NAME SELECT 0 AS direction, 0 AS role, 0 AS pole, "
                "$place AS any_place, 0.5 AS value, $place AS doc_id, 's' AS source, 0 AS start, "
                "$peak AS peak, 0 AS duplicates, 0 AS repeats, $text AS text, "
                "$lengths::UINTEGER[] AS token_lengths, []::UTINYINT[] AS roles, "
                "[]::SMALLINT[] AS activations",
                {"place": place, "peak": peak, "text": text, "lengths": lengths},
            )


def test_tokens_without_a_character_of_their_own_have_that_which_they_share(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(4)
    letters = list("ab \u00e9\u6708\U0001f389\u0301\x00\u0e01")
    windows: list[tuple[str, list[int], int]] = []
    for _ in range(300):
        lengths = rng.integers(0, 3, int(rng.integers(1, 9))).tolist()
        # Up to two characters fewer than the tokens say, or more.
        n = max(0, sum(lengths) + int(rng.integers(-2, 2)))
        text = "".join(rng.choice(letters, n))
        windows.append((text, lengths, int(rng.integers(len(lengths)))))
    path = tmp_path / "run.duckdb"
    insert(path, windows)
    wanted = [
        Pieces.text_at(Window(0, "s", 0, text, np.cumsum(lengths, dtype=np.uint32)), peak)
        for text, lengths, peak in windows
    ]
    with RunStore(path) as store:
        ((_, _, peaks),) = store.peaks()
    assert [peak.token for peak in peaks] == wanted
    assert "" in wanted
