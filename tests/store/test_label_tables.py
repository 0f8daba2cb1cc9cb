"""What the label and score tables take in comes out again, and nobody else's is touched."""

from pathlib import Path

import pytest

from builder.config import ScanSettings
from builder.records import Judged, Label, LabelFailure, Score, Similar, Spend
from builder.store import RunStore, write_database
from tests.store.synthetic import directions_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.duckdb"
    write_database(path, directions_of(4), [], settings=ScanSettings(), meta={})
    return path


def _ids(path: Path) -> list[str]:
    with RunStore(path) as store:
        return [row.id for row in store.directions()]


def test_labels_with_candidates_come_back(path: Path) -> None:
    one, other = _ids(path)[:2]
    chosen = Label(
        one, "max", "a-model", "rivers", "why", ("river",), "topic", 0.5, "hash", (3, 1), 10, 5,
        candidate=1, agreement=0.4, author="", created="2026-01-02", cost=0.01,
    )  # fmt: skip
    rejected = Label(one, "max", "a-model", None, candidate=0, is_chosen=False, agreement=0.4)
    failed = LabelFailure(one, "max", "a-model", "schema", "label: empty", "h", 1, 2, 2, 0.001)
    by_hand = Label(other, "min", "by hand", "boats", author="Jo", created="2026-01-03")
    with RunStore(path, read_only=False) as store:
        store.replace_labels([chosen, failed, rejected], fingerprint="f")
        store.replace_labels([by_hand], fingerprint="g")
        assert store.labels() == [chosen, by_hand]
        assert store.labels(candidates=True) == [rejected, chosen, by_hand]
        assert store.label_failures() == [failed]
        assert store.label_fingerprint("a-model") == "f"
        assert store.example_docs()[one, "max"] == {"a-model": {1, 3}}
        store.replace_labels([by_hand], fingerprint="g")
        assert store.labels() == [chosen, by_hand]


def test_scores_come_back(path: Path) -> None:
    one = _ids(path)[0]
    judged = (
        Judged("pole", 3, 17, True, 0.75, 0.001, 7, 49, (4, 5)),
        Judged("random", 8, 2, False, None, 0.5, 0, 12),
    )
    score = Score(
        one, "min", "a-model", "fuzzing", "a-judge", "rivers", 0.5, 0.25, (0.125, 0.75),
        (0.125, 0.5), (0.0, 0.25), 0.01, 0.2, 1, 1, 1, {"refusal": 1}, 100, 20, 0.5,
        judged=judged,
    )  # fmt: skip
    nothing = Score(one, "max", "a-model", "detection", "a-judge", "boats", None, None)
    selecting = Score(
        one, "max", "a-model", "detection", "a-judge", "boats", 1.0, 1.0, split="select"
    )
    with RunStore(path, read_only=False) as store:
        store.replace_scores("a-model", [score, nothing, selecting], fingerprint="f")
        store.replace_scores("another", [], fingerprint="g")
        assert store.scores(judged=True) == [nothing, score]
        assert [item.judged for item in store.scores(one)] == [(), ()]
        assert store.scores(one, candidates=True, judged=True) == [nothing, selecting, score]
        assert store.score_fingerprint("a-model") == "f"
        store.replace_scores("a-model", [nothing])
        assert store.scores() == [nothing]


def test_similar_labels_and_spend_come_back(path: Path) -> None:
    one, other = _ids(path)[:2]
    similar = [
        Similar(one, "max", other, "min", 0.75, "words"),
        Similar(one, "max", one, "min", 0.5, "words"),
    ]
    spend = Spend("labels", "a-model", 3, 100, 20, 1, None)
    with RunStore(path, read_only=False) as store:
        store.replace_similar(similar)
        store.replace_spend("labels", [spend])
        store.replace_spend("scores", [])
        assert store.similar(one) == similar
        assert store.similar(other) == []
        assert store.spend() == [spend]
