"""labels.toml: what a person wrote is taken up, shown first, and taken away with the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from builder import pipeline
from builder.config import ModelSettings, Settings, SiteSettings
from builder.errors import ConfigError
from builder.labels import by_hand
from builder.labels.by_hand import read_labels
from builder.labels.precedence import precedence
from builder.records import HAND, Label, LabelFailure
from builder.run_folder import Run
from builder.store import RunStore
from tests.pages.fixture import make_run

DIRECTION = "L00.o_proj.u00"
GOOD = f"""
[[label]]
direction = "{DIRECTION}"
pole = "min"
text = "Russian travel talk"
explanation = "Read all twenty.\\nSure."
author = "A. Reader"
date = 2026-11-21
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by-hand") / "pico"
    return make_run(folder, name="pico", title="Pico", seed=5, layers=1, ranks=1, documents=12,
                    scored=False)  # fmt: skip


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "pico"))


def by_hand_labels(run: Path) -> list[Label]:
    with RunStore(run / "run.duckdb") as store:
        return [label for label in store.labels() if label.labeler == HAND]


def test_a_label_by_hand_is_taken_up_changed_and_taken_away_with_the_file(run: Path) -> None:
    file, database = run / "labels.toml", run / "run.duckdb"
    with RunStore(database) as store:
        machine = store.labels()

    file.write_text(GOOD)
    assert by_hand.refresh(run, database) == 1
    (label,) = by_hand_labels(run)
    assert (label.direction, label.pole, label.text) == (DIRECTION, "min", "Russian travel talk")
    assert (label.author, label.created) == ("A. Reader", "2026-11-21")
    assert label.explanation == "Read all twenty. Sure."

    file.write_text(GOOD.replace("travel talk", ""))
    by_hand.refresh(run, database)
    assert by_hand_labels(run)[0].text == "Russian"

    for left in ("", None):
        file.write_text(GOOD)
        assert by_hand.refresh(run, database) == 1
        if left is None:
            file.unlink()
        else:
            file.write_text(left)
        assert by_hand.refresh(run, database) == 0
        assert by_hand_labels(run) == []
    with RunStore(database) as store:
        assert store.labels() == machine


def test_an_unchanged_file_leaves_the_database_untouched(run: Path) -> None:
    database = run / "run.duckdb"
    (run / "labels.toml").write_text(GOOD)
    by_hand.refresh(run, database)
    before = database.stat().st_mtime_ns
    assert by_hand.refresh(run, database) == 1
    assert database.stat().st_mtime_ns == before


def test_an_empty_text_says_that_there_is_no_pattern() -> None:
    (label,) = read(GOOD.replace("Russian travel talk", " "))
    assert label.text is None


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    assert len(read("\ufeff" + GOOD)) == 1


def read(text: str) -> list[Label]:
    return read_labels(text.encode("utf-8"), Path("labels.toml"), {DIRECTION})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (DIRECTION, "L09.o_proj.u00", "label 1 (L09.o_proj.u00 min): direction: the run has none"),
        ('pole = "min"', 'pole = "low"', "pole: Input should be 'max' or 'min'"),
        ("Russian travel talk", "a b c d e f g h i j k", "text: has 11 words; a label has at most"),
        ("Russian", "Russ\\u202Eian", "text: holds a control or invisible character, U+202E"),
        ("Russian", "Russ\\u0007ian", "U+0007"),
        ("Russian", "Russ\\nian", "text: goes over several lines"),
        ("Sure", "Su\\u200Bre", "explanation: holds a control or invisible character, U+200B"),
        ("A. Reader", "A\\u0000", "author: holds"),
        ("A. Reader", " ", "author: String should have at least 1 character"),
        ("Russian", "x" * 300, "text: String should have at most 200 characters"),
        ('author = "A. Reader"\n', "", "author: needed, but missing"),
        ("date = 2026-11-21", 'date = "yesterday"', "date: Input should be a valid date"),
        ("date = 2026-11-21", "date = 2026-11-21\ncolour = 1", "colour: unknown; known are"),
        ("[[label]]", "[label]", "write each entry under a [[label]]"),
        ("[[label]]", "[[labels]]", "labels: unknown"),
        ('text = "', 'text = ', "not valid TOML"),
    ],
)  # fmt: skip
def test_a_fault_in_the_file_is_named_with_its_place(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        read(GOOD.replace(old, new))
    assert said in str(caught.value)
    assert str(caught.value).startswith("labels.toml")


def test_two_labels_of_one_pole_and_all_other_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read(GOOD + GOOD + GOOD.replace(DIRECTION, "nowhere"))
    message = str(caught.value)
    assert f"label 2 ({DIRECTION} min): label 1 is of the same pole" in message
    assert "label 3 (nowhere min): direction: the run has none of that id" in message


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[[" * 5000, b"label = 3", b"label = [3]"])
def test_a_file_that_is_no_list_of_labels_is_a_config_error(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"labels\.toml"):
        read_labels(content, Path("labels.toml"), {DIRECTION})


def test_a_faulty_file_changes_neither_database_nor_site(run: Path, tmp_path: Path) -> None:
    (run / "labels.toml").write_text(GOOD)
    settings = SiteSettings(out=str(tmp_path / "site"))
    pipeline.make_site([run], settings)
    page = next((tmp_path / "site").rglob("l00.o_proj.u00.html"))
    shown = page.read_text()
    assert "Russian travel talk" in shown
    (run / "labels.toml").write_text(GOOD.replace("Russian", "Ru\\u0007"))
    with pytest.raises(ConfigError):
        pipeline.make_site([run], settings)
    assert page.read_text() == shown
    assert by_hand_labels(run)[0].text == "Russian travel talk"

    (run / "labels.toml").unlink()
    pipeline.make_site([run], settings)
    assert "Russian travel talk" not in page.read_text()


def test_the_label_stage_takes_up_labels_by_hand_and_stops_at_a_fault(run: Path) -> None:
    settings = Settings(name="pico", model=ModelSettings(tuned="pico/chat"))
    with RunStore(run / "run.duckdb", read_only=False) as store:
        store.update_meta({"scan_fingerprint": "made up"})
    (run / "labels.toml").write_text(GOOD)
    pipeline.make_labels(Run(run, settings))
    assert by_hand_labels(run)[0].text == "Russian travel talk"
    with RunStore(run / "run.duckdb") as store:
        assert "keywords" in {label.labeler for label in store.labels()}

    (run / "labels.toml").write_text(GOOD.replace("2026-11-21", "soon"))
    with pytest.raises(ConfigError, match="not valid TOML"):
        pipeline.make_labels(Run(run, settings))


def test_a_persons_answer_goes_before_every_other_and_a_failure_after_all() -> None:
    answers: list[Label | LabelFailure] = [
        LabelFailure("d", "max", "model", "timeout"),
        Label("d", "max", "keywords", None),
        Label("d", "max", "keywords", "words"),
        Label("d", "max", "model", "a model's"),
        Label("d", "max", HAND, None),
    ]
    assert sorted(answers, key=precedence) == answers[::-1]


def test_of_several_models_the_label_of_the_latest_day_stands() -> None:
    answers = [
        Label("d", "max", "a-model", "undated"),
        Label("d", "max", "b-model", "first", created="2025-12-31"),
        Label("d", "max", "c-model", "later", created="2026-01-02", candidate=1),
        Label("d", "max", "a-model", "later too", created="2026-01-02", candidate=2),
    ]
    assert sorted(answers, key=precedence) == answers[::-1]
